package localpath

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
)

// Provisioner is the name that the storage classes of k3s and RKE2 users have (rancher/local-path-provisioner).
const Provisioner = "rancher.io/local-path"

// Options are the settings of one run.
type Options struct {
	Node       string // this machine's
	Dir        string // where volumes are, on the machine and in the pod
	Kubeconfig string // empty in a pod
}

// ParseArguments reads the command line.
func ParseArguments(args []string, out io.Writer) (Options, error) {
	var o Options
	f := flag.NewFlagSet("local-path", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.Node, "node-name", "", "this machine's Node")
	f.StringVar(&o.Dir, "dir", "", "folder of the volumes, by the same path on the machine and here")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig; empty in a pod")
	if err := f.Parse(args); err != nil {
		return Options{}, err
	}
	switch {
	case f.NArg() > 0:
		return Options{}, fmt.Errorf("parse arguments: %q is not a flag", f.Arg(0))
	case o.Node == "":
		return Options{}, errors.New("parse arguments: --node-name: the Node's name is missing")
	case !filepath.IsAbs(o.Dir) || filepath.Clean(o.Dir) == "/":
		return Options{}, fmt.Errorf("parse arguments: --dir: %q is no folder for volumes; write an absolute path such as /var/lib/rancher/rke2/storage", o.Dir)
	}
	o.Dir = filepath.Clean(o.Dir)
	return o, nil
}
