package loadbalancer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keelson/node/file"
)

// maxServers bounds the list: what is learnt from a server is not trusted to be small.
const maxServers = 64

// maxFile bounds the state file.
const maxFile = 64 << 10

// retryWrite is the time between two tries of a state file that cannot be written.
const retryWrite = 30 * time.Second

// record is the state file of k3s pkg/agent/loadbalancer/config.go.
type record struct {
	ServerURL       string
	ServerAddresses []string
}

const scheme = "https://"

// parse reads a state file. Addresses that cannot be dialled are errors: the file is this program's own.
func parse(data []byte) (fallback string, list []string, err error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return "", nil, err
	}
	if r.ServerURL != "" {
		fallback = strings.TrimPrefix(r.ServerURL, scheme)
		if err := checkAddress(fallback); err != nil || fallback == r.ServerURL {
			return "", nil, fmt.Errorf("ServerURL %q: not an https://host:port", r.ServerURL)
		}
	}
	for _, address := range r.ServerAddresses {
		if err := checkAddress(address); err != nil {
			return "", nil, fmt.Errorf("ServerAddresses: %w", err)
		}
	}
	if len(r.ServerAddresses) > maxServers {
		return "", nil, fmt.Errorf("ServerAddresses: %d of them, at most %d are possible", len(r.ServerAddresses), maxServers)
	}
	return fallback, r.ServerAddresses, nil
}

// render makes a state file as RKE2 writes it.
func render(fallback string, list []string) ([]byte, error) {
	r := record{ServerURL: scheme + fallback, ServerAddresses: list}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// checkAddress wants a host and a port number.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("server %q: want host:port: %w", address, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("server %q: the port is no number from 1 to 65535", address)
	}
	if host == "" || strings.ContainsAny(host, "/@ \t\r\n\x00\"") || strings.ToValidUTF8(host, "") != host {
		return fmt.Errorf("server %q: the host is no name and no IP address", address)
	}
	return nil
}

// recall takes the list of the last run over. Another default server means another cluster: its list is not for us.
// A load balancer without a default server takes the file's.
func (b *Balancer) recall() {
	data, err := readBounded(b.cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var fallback string
	var list []string
	if err == nil {
		fallback, list, err = parse(data)
	}
	if err != nil {
		b.log.Warn("list of servers not recalled: it will be learnt anew", "file", b.cfg.StateFile, "error", err)
		return
	}
	if b.cfg.Default != "" && fallback != b.cfg.Default {
		b.log.Info("list of servers not recalled: it belongs to another default server", "file", b.cfg.StateFile, "default", fallback)
		return
	}
	if b.cfg.Default == "" && fallback != "" {
		b.owner = newOwner(fallback, b.log)
	}
	b.owner.tell(event{kind: listed, list: list})
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are possible", info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// remember writes the list whenever it changed, until ctx is done, and what is then still unwritten.
func (b *Balancer) remember(ctx context.Context) {
	retry := time.NewTimer(retryWrite)
	retry.Stop()
	defer retry.Stop()
	for {
		var done bool
		select {
		case <-b.dirty:
		case <-retry.C:
		case <-ctx.Done():
			select {
			case <-b.dirty:
				done = true
			default:
				return
			}
		}
		if err := b.write(); err != nil {
			b.log.Warn("list of servers not kept: it is lost if this machine restarts", "error", err)
			retry.Reset(retryWrite)
		}
		if done {
			return
		}
	}
}

func (b *Balancer) write() error {
	fallback, list := b.owner.remembered()
	if len(list) == 0 {
		return nil
	}
	data, err := render(fallback, list)
	if err != nil {
		return fmt.Errorf("render list of servers: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(b.cfg.StateFile), 0o755); err != nil {
		return fmt.Errorf("make folder of the list of servers: %w", err)
	}
	_, err = file.Ensure(b.cfg.StateFile, data, 0o644)
	return err
}
