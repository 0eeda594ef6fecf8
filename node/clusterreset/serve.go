package clusterreset

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// serveTimeout bounds one run of the etcd inside: reading the log of a large database takes its time.
const serveTimeout = 10 * time.Minute

// serve runs etcd on a folder of data as a cluster of its own, reachable over a socket in a folder that only this user
// enters, while use runs. alone has it forget every other member of the data.
func serve(ctx context.Context, dir string, alone bool, use func(context.Context, *clientv3.Client) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	sockets, err := os.MkdirTemp("", "reset-") // sockets have short names
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer os.RemoveAll(sockets)
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "c")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "p")}
	c := embed.NewConfig()
	c.Dir, c.LogLevel, c.ForceNewCluster = dir, "fatal", alone // what goes wrong comes back as an error
	c.TickMs, c.ElectionMs = 20, 200                           // there is nobody to wait for
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	// Nobody may connect as a peer, and etcd's listener for one would be a socket without a name, whose end it awaits for
	// ever where the working folder cannot be written.
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	if name, err := os.ReadFile(filepath.Join(dir, "name")); err == nil {
		c.Name = string(name)
		c.InitialCluster = c.InitialClusterFromName(c.Name)
	}
	server, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("start etcd: %w", errors.Join(context.Cause(ctx), errors.New("it did not become ready")))
	}
	connection, err := clientv3.New(clientv3.Config{Context: ctx, Endpoints: []string{client.String()}, Logger: zap.NewNop()})
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	return use(ctx, connection)
}
