package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/etcd"
	"keelson/node/recovery"
	change "keelson/node/rotation"
	"keelson/node/token"
)

// localEtcd is the member of the machine that a verb runs on, and etcdWithin how long it may take to answer.
const (
	localEtcd  = "https://127.0.0.1:2379"
	etcdWithin = 15 * time.Second
)

// recover gives the cluster a new token without the one before, by the files of a server's disk.
func (t *tokens) recover(ctx context.Context, flags *flag.FlagSet, args []string) error {
	var next, endpoint string
	flags.StringVar(&next, "new-token", "", "the new token; without it one is made")
	flags.StringVar(&endpoint, "etcd", localEtcd, "a member of etcd that answers")
	unsealed := flags.Bool("unsealed", false, "go by this disk where nothing tells whether it is the newest")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	password, err := change.Check(token.Secret(next))
	if err != nil {
		return err
	}
	serverDir := filepath.Join(t.dataDir, "server")
	bundle, err := os.ReadFile(filepath.Join(serverDir, "tls", "server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read server CA: %w; run this on a server, whose disk has the cluster's authorities", err)
	}
	full, err := token.Format(bundle, token.UserServer, password)
	if err != nil {
		return err
	}
	files := func(name string) string { return filepath.Join(serverDir, "tls", "etcd", name) }
	client, err := etcd.NewClient(ctx, etcd.Connection{
		Endpoints: []string{endpoint}, CAFile: files("server-ca.crt"), CertFile: files("client.crt"), KeyFile: files("client.key"),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	asked, cancel := context.WithTimeout(ctx, etcdWithin)
	defer cancel()
	nodes, err := recovery.Nodes(asked, client)
	if err != nil {
		return fmt.Errorf("etcd at %s does not answer: %w; name a member that does with --etcd. Where no server starts, give one of them the new token and token-recover: true in its settings, and start it", endpoint, err)
	}
	result, err := recovery.Run(ctx, recovery.Params{
		Store: etcdstore.New(client), ServerDir: serverDir, Next: password, Unsealed: *unsealed, Overlap: change.DefaultOverlap, Now: t.now,
	})
	if err != nil {
		return err
	}
	return errors.Join(t.tellRecovery(result, nodes), t.show(full))
}

func (t *tokens) show(full token.Secret) error {
	_, err := fmt.Fprintln(t.stdout, full.Reveal())
	return err
}

// tellRecovery says what was done, and what is left to do by hand.
func (t *tokens) tellRecovery(result recovery.Result, nodes []string) error {
	var done string
	switch result.Outcome {
	case recovery.Present:
		done = "This is the cluster's token already; the files of this server have it now."
	case recovery.Rotated:
		done = "The token was not lost: this disk had it. It is rotated; the one before is honoured for a day."
	default:
		done = "The cluster has a new token; the one before opens nothing any more. What was removed from etcd is in " + result.Kept + "."
	}
	_, err := fmt.Fprintf(t.stderr, "%s\nServers that run take it over by themselves, others when they start. Bring it up to date wherever it stands in settings: of these machines\n"+
		"(%s),\nwhich go on by their certificates until then, and of those that are to join.\n", done, strings.Join(nodes, ", "))
	return err
}
