package clusterreset

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/file"
)

// EpochKey is where a cluster keeps its reset epoch in etcd.
const EpochKey = "keelson/reset-epoch"

// Epoch says which of a cluster's lives this is. A reset begins the next; a cluster that never was reset has the zero
// epoch. Numbers order epochs; the ID tells apart two resets that did not know of each other.
type Epoch struct {
	Number int64  `json:"number"`
	ID     string `json:"id"`
}

// Next makes the epoch after e. It is no less than the clock, so that a reset that lost every trace of an earlier one
// comes after it all the same; a clock that stands too low costs nothing while a trace is left.
func (e Epoch) Next(now time.Time) Epoch {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return Epoch{Number: max(e.Number+1, now.Unix()), ID: hex.EncodeToString(id[:])}
}

// newer returns the later of two epochs.
func newer(a, b Epoch) Epoch {
	if b.Number > a.Number {
		return b
	}
	return a
}

// ParseEpoch reads an epoch as file and key hold it.
func ParseEpoch(data []byte) (Epoch, error) {
	var e Epoch
	if err := json.Unmarshal(data, &e); err != nil {
		return Epoch{}, fmt.Errorf("parse reset epoch: %w", err)
	}
	if id, err := hex.DecodeString(e.ID); err != nil || len(id) != 16 || e.Number <= 0 {
		return Epoch{}, errors.New("parse reset epoch: a positive number and 32 hex digits are wanted")
	}
	return e, nil
}

func (e Epoch) encode() []byte {
	data, _ := json.Marshal(e) // of a number and a string: it always marshals
	return data
}

func epochPath(dataDir string) string { return filepath.Join(dataDir, "server/db/reset-epoch") }

// LoadEpoch reads the epoch of this server's data.
func LoadEpoch(dataDir string) (Epoch, error) {
	data, err := os.ReadFile(epochPath(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return Epoch{}, nil
	}
	if err != nil {
		return Epoch{}, fmt.Errorf("read reset epoch: %w", err)
	}
	return ParseEpoch(data)
}

// saveEpoch keeps e, and the zero epoch as no file.
func saveEpoch(dataDir string, e Epoch) error {
	path := epochPath(dataDir)
	if e == (Epoch{}) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("save reset epoch: %w", err)
		}
		return nil
	}
	_, err := file.Ensure(path, e.encode(), 0o600)
	return err
}

// Adopt makes this server's file say what the cluster that its member belongs to says. It runs whenever etcd serves,
// before anything asks for the epoch.
func Adopt(ctx context.Context, kv clientv3.KV, dataDir string) (Epoch, error) {
	e, err := readEpoch(ctx, kv)
	if err != nil {
		return Epoch{}, err
	}
	return e, saveEpoch(dataDir, e)
}

func readEpoch(ctx context.Context, kv clientv3.KV) (Epoch, error) {
	got, err := kv.Get(ctx, EpochKey)
	if err != nil {
		return Epoch{}, fmt.Errorf("read the cluster's reset epoch: %w", err)
	}
	if len(got.Kvs) == 0 {
		return Epoch{}, nil
	}
	return ParseEpoch(got.Kvs[0].Value)
}

// Info is what /db/info tells beside the members, under the name "keelson".
type Info struct {
	Cluster string `json:"clusterID"` // hexadecimal
	Epoch   Epoch  `json:"resetEpoch"`
}

// Describe asks this server's cluster.
func Describe(ctx context.Context, kv clientv3.KV) (Info, error) {
	got, err := kv.Get(ctx, EpochKey)
	if err != nil {
		return Info{}, fmt.Errorf("describe the cluster: %w", err)
	}
	info := Info{Cluster: strconv.FormatUint(got.Header.ClusterId, 16)}
	if len(got.Kvs) == 0 {
		return info, nil
	}
	info.Epoch, err = ParseEpoch(got.Kvs[0].Value)
	return info, err
}
