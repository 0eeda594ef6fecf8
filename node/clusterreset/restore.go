package clusterreset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot"
	"keelson/node/file"
)

// revisionBump puts the restored state's revisions above all that the old cluster can have handed out since the
// snapshot (etcd's advice for Kubernetes: etcd.io, "Restoring with revision bump").
const revisionBump = 1_000_000_000

// obtain puts a plain, verified snapshot at target.
func (p Params) obtain(ctx context.Context, target string) error {
	if p.Restore == "" {
		return p.ownState(ctx, target)
	}
	source, err := p.locate(ctx)
	if err != nil {
		return err
	}
	info, err := etcdsnapshot.Unpack(source, target)
	if err != nil {
		return err
	}
	p.Log.Info("snapshot to restore", "file", source, "bytes", info.Size, "revision", info.Revision)
	return nil
}

// locate finds what cluster-reset-restore-path names.
func (p Params) locate(ctx context.Context) (string, error) {
	if filepath.IsAbs(p.Restore) {
		if _, err := os.Stat(p.Restore); err != nil {
			return "", fmt.Errorf("cluster-reset-restore-path: %w", err)
		}
		return p.Restore, nil
	}
	if err := etcdsnapshot.CheckFile(p.Restore); err != nil {
		return "", fmt.Errorf("cluster-reset-restore-path: %w", err)
	}
	path := filepath.Join(p.SnapshotDir, p.Restore)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if p.Fetch == nil {
		return "", fmt.Errorf("cluster-reset-restore-path: %w; to take it from an object store, set etcd-s3 and its keys (its Secret cannot be read without a cluster)", err)
	}
	path = filepath.Join(workPath(p.DataDir), "download")
	if err := p.Fetch(ctx, p.Restore, path); err != nil {
		return "", fmt.Errorf("cluster-reset-restore-path: %w", err)
	}
	return path, nil
}

// ownState takes a snapshot of this server's own data, on a copy: what the member had not seen committed is dropped
// and the other members are forgotten there, while the data itself stays as it is.
func (p Params) ownState(ctx context.Context, target string) error {
	if has, err := etcd.HasData(p.DataDir); err != nil || !has {
		return errors.Join(err, ErrNoData)
	}
	copied := filepath.Join(workPath(p.DataDir), "copy")
	if err := copyTree(filepath.Join(etcd.Dir(p.DataDir), "member"), filepath.Join(copied, "member")); err != nil {
		return fmt.Errorf("copy the data: %w", err)
	}
	err := serve(ctx, copied, true, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.SnapshotWithVersion(ctx)
		if err != nil {
			return fmt.Errorf("read the data: %w", err)
		}
		defer response.Snapshot.Close()
		out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("read the data: %w", err)
		}
		_, err = io.Copy(out, response.Snapshot)
		return errors.Join(err, out.Sync(), out.Close())
	})
	if err != nil {
		return err
	}
	if _, err := etcdsnapshot.Verify(target); err != nil {
		return err
	}
	if err := os.RemoveAll(copied); err != nil {
		return fmt.Errorf("remove the copy: %w", err)
	}
	return nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rest)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}

// restore makes a member's data of the snapshot. The cluster's identity comes of its members and of the token, which
// is new each time: a member of the old cluster can never take this one for its own.
func (p Params) restore(f flag) error {
	member := etcd.Params{DataDir: p.DataDir, Name: f.Member, Address: p.Address}
	dir := filepath.Join(workPath(p.DataDir), "etcd")
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: filepath.Join(workPath(p.DataDir), "snapshot"), Name: f.Member, OutputDataDir: dir,
		PeerURLs: []string{member.PeerURL()}, InitialCluster: member.InitialCluster(),
		InitialClusterToken: f.Member + "-" + strconv.FormatInt(f.Stamp, 10),
		RevisionBump:        revisionBump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("restore the snapshot: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("restore the snapshot: %w", err)
	}
	return file.Write(filepath.Join(dir, "name"), []byte(f.Member), 0o600)
}

// Keys that tell of servers that are gone.
const (
	keyAPIAddresses    = "rke2/apiaddresses"
	keyLearnerProgress = "rke2/etcd/learnerProgress"
)

// recordFile keeps the encrypted bootstrap record for after the exchange.
func (p Params) recordFile() string { return filepath.Join(workPath(p.DataDir), "record.json") }

// renew starts etcd on the new data once: to see that it starts and that the token opens the bootstrap record, before
// anything is at stake, and to begin the epoch.
func (p Params) renew(ctx context.Context, f *flag) error {
	local, err := LoadEpoch(p.DataDir)
	if err != nil {
		p.Log.Warn("cluster reset: the old epoch", "error", err) // the clock orders the new one
	}
	return serve(ctx, filepath.Join(workPath(p.DataDir), "etcd"), false, func(ctx context.Context, client *clientv3.Client) error {
		store := etcdstore.New(client)
		if _, err := bootstrapdata.Migrate(ctx, store, p.Password, p.Texts...); err != nil {
			return err
		}
		_, err := bootstrapdata.Load(ctx, store, p.Password)
		if p.Recover != nil && (errors.Is(err, bootstrapdata.ErrOtherToken) || errors.Is(err, bootstrapdata.ErrSeveral)) {
			err = p.Recover(ctx, store)
		}
		if err != nil {
			return fmt.Errorf("open the bootstrap record of the data to restore: %w; the token must be the one that was valid when the snapshot was taken", err)
		}
		records, err := store.List(ctx, bootstrapdata.Prefix)
		if err != nil {
			return fmt.Errorf("read the bootstrap record: %w", err)
		}
		data, err := json.Marshal(records)
		if err != nil {
			return fmt.Errorf("keep the bootstrap record: %w", err)
		}
		if err := file.Write(p.recordFile(), data, 0o600); err != nil {
			return fmt.Errorf("keep the bootstrap record: %w", err)
		}
		was, err := readEpoch(ctx, client)
		if err != nil {
			return err
		}
		f.Epoch = newer(local, was).Next(p.Now)
		_, err = client.Txn(ctx).Then(
			clientv3.OpPut(EpochKey, string(f.Epoch.encode())),
			clientv3.OpPut(keyAPIAddresses, ""),
			clientv3.OpDelete(keyLearnerProgress),
		).Commit()
		if err != nil {
			return fmt.Errorf("begin the epoch: %w", err)
		}
		return nil
	})
}

// records is the bootstrap record where no etcd runs.
type records []bootstrapdata.Record

func (r records) List(context.Context, string) ([]bootstrapdata.Record, error) { return r, nil }
func (r records) Put(context.Context, string, string, int64) (bool, error) {
	return false, errors.New("the record is read only here")
}

// takeRecord has this server's certificates and secrets be those of a restored cluster. Its own go to tls-old-<unix>:
// they may be of a newer generation, or of a cluster that another reset began. Without a snapshot they are in line.
func (p Params) takeRecord(ctx context.Context, f flag) error {
	data, err := os.ReadFile(p.recordFile())
	if f.Request == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the bootstrap record: %w", err)
	}
	var kept records
	if err := json.Unmarshal(data, &kept); err != nil {
		return fmt.Errorf("read the bootstrap record: %w", err)
	}
	record, err := bootstrapdata.Load(ctx, kept, p.Password)
	if err != nil {
		return fmt.Errorf("open the bootstrap record: %w", err)
	}
	server := filepath.Join(p.DataDir, "server")
	tls, old := filepath.Join(server, "tls"), filepath.Join(server, "tls-old-"+strconv.FormatInt(f.Stamp, 10))
	if _, err := os.Stat(old); err == nil {
		err = os.RemoveAll(tls) // half of the restored ones, before a power cut
		if err != nil {
			return fmt.Errorf("take the cluster's certificates: %w", err)
		}
	} else if err := os.Rename(tls, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the old certificates: %w", err)
	}
	if err := os.Remove(filepath.Join(server, "cred/.bootstrap-agreed.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take the cluster's certificates: %w", err)
	}
	if _, err := bootstrapdata.Reconcile(server, record); err != nil {
		return fmt.Errorf("take the cluster's certificates: %w", err)
	}
	return nil
}

var _ bootstrapdata.Store = records(nil)
