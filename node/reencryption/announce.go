package reencryption

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson/node/encryption"
	"keelson/node/nodeobject"
)

// Annotation says on a server's Node what its kube-apiserver has loaded: encryption.Settings.Mark.
const Annotation = "rke2.io/encryption-config-hash"

// lookAgain is how often a kube-apiserver is asked that has not loaded the file yet. Of that there is no event; it looks
// at the file itself every few seconds.
const lookAgain = time.Second

// Announcer says on this server's Node which state its own kube-apiserver has loaded.
type Announcer struct {
	ServerDir string // RKE2's <server>, with the files
	Node      string
	Client    kubernetes.Interface
	// Loaded gives the hash of the configuration that this server's own kube-apiserver has loaded; nil where it runs none.
	Loaded  func(ctx context.Context) (string, error)
	Changed <-chan struct{} // the files may have changed
	Log     *slog.Logger
}

// Run announces the state of the files once kube-apiserver has loaded it, now and whenever they change.
func (a Announcer) Run(ctx context.Context) error {
	said := ""
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		err := a.announce(ctx)
		var again <-chan time.Time
		if err != nil {
			if text := err.Error(); text != said && ctx.Err() == nil {
				said = text
				a.Log.Info("encryption of Secrets is not announced yet", "reason", err)
			}
			timer.Reset(lookAgain)
			again = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.Changed:
		case <-again:
		}
	}
}

func (a Announcer) announce(ctx context.Context) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	if a.Loaded != nil {
		loaded, err := a.Loaded(ctx)
		if err != nil {
			return err
		}
		if loaded != s.Hash() {
			return errors.New("kube-apiserver has not loaded the configuration")
		}
	}
	return nodeobject.Ensure(ctx, a.Client, a.Node, nodeobject.Marks{Annotations: map[string]string{Annotation: s.Mark()}})
}

// load reads the files. Between the writes of the two the state is another configuration's: that is not announced.
func (a Announcer) load() (encryption.Settings, error) {
	config, err := os.ReadFile(filepath.Join(a.ServerDir, "cred", "encryption-config.json"))
	if err != nil {
		return encryption.Settings{}, err
	}
	state, err := os.ReadFile(filepath.Join(a.ServerDir, "cred", "encryption-state.json"))
	if err != nil {
		return encryption.Settings{}, err
	}
	s, err := encryption.Load(config, state)
	if err == nil && strings.TrimSpace(string(state)) != s.Mark() {
		err = errors.New("encryption-state.json is not this configuration's")
	}
	return s, err
}

// metric tells the hash of the configuration that a kube-apiserver has loaded, at its start or since
// (k8s.io/apiserver, encryptionconfig/metrics).
const metric = "apiserver_encryption_config_controller_last_config_info{"

// LoadedOf asks the kube-apiserver that client leads to, which must be one and the same.
func LoadedOf(client rest.Interface) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		metrics, err := client.Get().AbsPath("/metrics").Stream(ctx)
		if err != nil {
			return "", fmt.Errorf("read kube-apiserver's metrics: %w", err)
		}
		defer metrics.Close()
		return parseLoaded(metrics)
	}
}

const longestLine = 1 << 20

// parseLoaded finds the hash in metrics of Prometheus' text format.
func parseLoaded(metrics io.Reader) (string, error) {
	lines := bufio.NewScanner(metrics)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), metric)
		if !ok {
			continue
		}
		for label := range strings.SplitSeq(rest, ",") {
			if value, ok := strings.CutPrefix(label, `hash="sha256:`); ok {
				sum, _, _ := strings.Cut(value, `"`)
				return sum, nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read kube-apiserver's metrics: %w", err)
	}
	return "", errors.New("kube-apiserver does not tell which encryption it has loaded")
}
