package certificate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/succession"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
)

// LoadAuthorities reads a folder that is laid out as <server>/tls for RKE2's `certificate rotate-ca --path`: server-ca.crt
// and .key, client-ca, request-header-ca, etcd/server-ca, etcd/peer-ca, service.key. What is absent stays as it is.
func LoadAuthorities(dir string) (bootstrapdata.Data, error) {
	next := bootstrapdata.Data{}
	for _, e := range bootstrapdata.Entries() {
		below, ok := strings.CutPrefix(e.Path, "tls/")
		if !ok {
			continue
		}
		path := filepath.Join(dir, below)
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("read new authorities: %w", err)
		}
		next[e.Name] = bootstrapdata.File{Content: content}
	}
	if len(next) == 0 {
		return nil, fmt.Errorf("read new authorities: %s holds none; it is laid out as the servers' folder tls, with server-ca.crt, server-ca.key and so on", dir)
	}
	return next, nil
}

// MakeAuthorities makes successors of the cluster's authorities: it reads the present ones from the server, and the new
// keys exist nowhere but here and, once sent, in the cluster.
func MakeAuthorities(ctx context.Context, a trust.Access, now time.Time) (bootstrapdata.Data, error) {
	client := supervisorclient.New(a, nil)
	defer client.Close()
	plain, err := client.ServerBootstrap(ctx)
	if err != nil {
		return nil, fmt.Errorf("read present authorities: %w", err)
	}
	current, err := bootstrapdata.Decode(plain)
	if err != nil {
		return nil, err
	}
	return succession.Make(current, now)
}

// Rotate sends new authorities to the server, which judges them and hands them to the cluster.
func Rotate(ctx context.Context, a trust.Access, next bootstrapdata.Data, force bool) error {
	plain, err := next.Encode()
	if err != nil {
		return err
	}
	client := supervisorclient.New(a, nil)
	defer client.Close()
	if err := client.ReplaceAuthorities(ctx, plain, force); err != nil {
		return fmt.Errorf("replace authorities: %w", err)
	}
	return nil
}
