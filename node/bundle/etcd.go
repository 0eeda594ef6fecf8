package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	etcdutil "go.etcd.io/etcd/etcdutl/v3/etcdutl"
	"go.etcd.io/etcd/pkg/v3/cobrautl"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

func etcd() int {
	etcdmain.Main(os.Args)
	return 0
}

func etcdctl() int {
	ctlv3.MustStart()
	return 0
}

// etcdutl assembles the offline tool from its commands; upstream does so in its package main.
func etcdutl() int {
	root := &cobra.Command{Use: "etcdutl", Short: "Offline administration of an etcd data directory."}
	flags := root.PersistentFlags()
	flags.DurationVar(&etcdutil.FlockTimeout, "timeout", 10*time.Second,
		"time to wait to obtain a file lock on db file, 0 to block indefinitely")
	flags.StringVarP(&etcdutil.OutputFormat, "write-out", "w", "simple",
		"set the output format (fields, json, protobuf, simple, table)")
	root.AddCommand(
		etcdutil.NewDefragCommand(),
		etcdutil.NewSnapshotCommand(),
		etcdutil.NewHashKVCommand(),
		etcdutil.NewVersionCommand(),
		etcdutil.NewMigrateCommand(),
	)
	root.SetHelpTemplate(`{{.UsageString}}`)
	if err := root.Execute(); err != nil {
		cobrautl.ExitWithError(cobrautl.ExitError, err)
	}
	return 0
}
