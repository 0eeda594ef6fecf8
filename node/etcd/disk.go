package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Why a member's data cannot be looked at.
var (
	ErrInUse      = errors.New("the data is in use: etcd runs")
	ErrNoIdentity = errors.New("the write-ahead log does not say whose it is")
)

// Identity is who a member with data is: numbers that etcd gave it for good when it was added.
type Identity struct {
	Member, Cluster uint64
}

// ReadIdentity reads it from the head of the first file of the write-ahead log (etcd server/storage/wal, Create).
func ReadIdentity(dataDir string) (Identity, error) {
	files, err := filepath.Glob(filepath.Join(Dir(dataDir), "member", "wal", "*.wal"))
	if err != nil || len(files) == 0 {
		return Identity{}, fmt.Errorf("look for member data: %w", errors.Join(err, ErrNoIdentity))
	}
	f, err := os.Open(slices.Min(files))
	if err != nil {
		return Identity{}, fmt.Errorf("read member data: %w", err)
	}
	defer f.Close()
	id, err := parseIdentity(fileutil.NewFileReader(f))
	if err != nil {
		return Identity{}, fmt.Errorf("read member data %s: %w", f.Name(), err)
	}
	return id, nil
}

func parseIdentity(r fileutil.FileReader) (Identity, error) {
	decoder := wal.NewDecoder(r)
	for {
		var rec walpb.Record
		if err := decoder.Decode(&rec); errors.Is(err, io.EOF) {
			return Identity{}, ErrNoIdentity
		} else if err != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
		}
		switch rec.GetType() {
		case wal.CrcType:
			decoder.UpdateCRC(rec.GetCrc())
		case wal.MetadataType:
			var m etcdserverpb.Metadata
			if err := proto.Unmarshal(rec.GetData(), &m); err != nil || m.GetNodeID() == 0 {
				return Identity{}, fmt.Errorf("%w: %v", ErrNoIdentity, err)
			}
			return Identity{Member: m.GetNodeID(), Cluster: m.GetClusterID()}, nil
		default:
			return Identity{}, ErrNoIdentity
		}
	}
}

// ReadInitial reads the first membership from the configuration that is there, as long as it has this member in it
// under own, its name and peer URL. etcd does not use it any more, but another text would be another pod.
func ReadInitial(dataDir, own string) (Initial, error) {
	content, err := os.ReadFile(ConfigPath(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return Initial{}, nil
	}
	if err != nil {
		return Initial{}, fmt.Errorf("read etcd configuration: %w", err)
	}
	var c struct {
		Cluster string `json:"initial-cluster"`
		State   string `json:"initial-cluster-state"`
	}
	// It is written anew anyhow; one that cannot be read is no reason to stop.
	if err := yaml.Unmarshal(content, &c); err != nil || !slices.Contains(strings.Split(c.Cluster, ","), own) {
		return Initial{}, nil
	}
	return Initial{Cluster: c.Cluster, State: c.State}, nil
}

// Known is the membership as far as the member had applied it when it stopped. The others may have gone on since.
type Known struct {
	Members []Member
	Removed []uint64
}

// Member is one of Known, as etcd keeps it (server/etcdserver/api/membership, Member).
type Member struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// lockWait is how long a reader waits for etcd, which holds its database locked as long as it runs.
const lockWait = 50 * time.Millisecond

// ReadKnown reads etcd's own database without a change to it. A member that has none yet knows nobody.
func ReadKnown(dataDir string) (Known, error) {
	path := filepath.Join(Dir(dataDir), "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return Known{}, nil
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return Known{}, fmt.Errorf("read %s: %w", path, ErrInUse)
	}
	if err != nil {
		return Known{}, fmt.Errorf("read %s: %w", path, err)
	}
	defer db.Close()
	var known Known
	err = db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte("members")); b != nil {
			if err := b.ForEach(func(_, value []byte) error {
				m, err := parseMember(value)
				known.Members = append(known.Members, m)
				return err
			}); err != nil {
				return err
			}
		}
		if b := tx.Bucket([]byte("members_removed")); b != nil {
			return b.ForEach(func(key, _ []byte) error {
				id, err := strconv.ParseUint(string(key), 16, 64)
				known.Removed = append(known.Removed, id)
				return err
			})
		}
		return nil
	})
	if err != nil {
		return Known{}, fmt.Errorf("read %s: %w", path, err)
	}
	return known, nil
}

func parseMember(value []byte) (Member, error) {
	var m Member
	if err := json.Unmarshal(value, &m); err != nil {
		return Member{}, fmt.Errorf("read a member: %w", err)
	}
	if m.ID == 0 {
		return Member{}, errors.New("read a member: it has no id")
	}
	return m, nil
}
