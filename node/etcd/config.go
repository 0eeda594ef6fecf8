// Package etcd renders the configuration of this server's etcd member, keeps its name, and asks it whether it serves.
//
// etcd itself is a static pod (node/staticpod). This package never starts it and never changes who is a member. Its
// input comes from node/config and node/pki by way of node/server, which also waits on Ready.
package etcd

import (
	"encoding/json"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Params says what differs from member to member. All paths are absolute.
type Params struct {
	DataDir       string   // <data>
	Name          string   // of the member, as EnsureName gives it
	Address       string   // IP that other members and servers reach it at
	ExposeMetrics bool     // etcd-expose-metrics
	Alone         bool     // the only member: elections need not allow for a network
	Reset         bool     // cluster-reset: forget all other members, and be there for this machine only
	Initial       Initial  // empty for a member that has data already
	Arguments     []string // etcd-arg: "key=value" in terms of etcd's configuration file
}

// Initial is how a member without data finds its cluster.
type Initial struct {
	Cluster string // "name=https://ip:2380,..."
	State   string // new or existing
}

// Dir is where the member's data lies, and ConfigPath its configuration.
func Dir(dataDir string) string        { return path.Join(dataDir, "server/db/etcd") }
func ConfigPath(dataDir string) string { return path.Join(Dir(dataDir), "config") }

// ClientURL is where the servers' clients reach this member, and PeerURL where the other members do.
func (p Params) ClientURL() string { return "https://" + net.JoinHostPort(p.Address, "2379") }
func (p Params) PeerURL() string   { return "https://" + net.JoinHostPort(p.Address, "2380") }

// InitialCluster is the first membership of a member that makes a new cluster.
func (p Params) InitialCluster() string { return p.Name + "=" + p.PeerURL() }

// Render returns the configuration file (k3s pkg/daemons/executor/etcd.go, with the keys of etcd 3.6 and later, in
// which the experimental- ones have plain names or are feature gates). Keys are in alphabetical order.
//
// RKE2 has etcd compare its data with the others' at each start (InitialCorruptCheck). When all servers start at once
// each waits for the answer of others that wait themselves: 30 s with three servers. Here the leader compares what all
// have, every minute, instead (CompactHashCheck).
func Render(p Params) ([]byte, error) {
	url := func(ip, port string) string { return "https://" + net.JoinHostPort(ip, port) }
	metrics := "http://127.0.0.1:2381"
	if p.ExposeMetrics {
		metrics += ",http://" + net.JoinHostPort(p.Address, "2381")
	}
	// RKE2's numbers, 500 ms and 5 s, bear a slow network. What waits for a leader waits that long and more: writes when
	// one is lost, and a member that comes up, which offers its name to the others and, where that went nowhere, offers it
	// again after 5 s and two elections (etcdserver, publishV3 and ReqTimeout), before it serves anybody. Half of them bear
	// 250 ms there and back (etcd.io/docs, tuning), and leave a leader with RKE2's heartbeat five beats.
	// A first leader is elected after 1 to 10 heartbeats at random, so that a server on its own would wait for nobody.
	heartbeat, election := 250, 2500
	if p.Alone {
		heartbeat, election = 100, 1000
	}
	clients, peers := url("127.0.0.1", "2379")+","+url(p.Address, "2379"), url("127.0.0.1", "2380")+","+url(p.Address, "2380")
	if p.Reset {
		clients, peers, metrics = url("127.0.0.1", "2379"), url("127.0.0.1", "2380"), "http://127.0.0.1:2381"
	}
	tls := path.Join(p.DataDir, "server/tls/etcd")
	config := map[string]any{
		"name":                    p.Name,
		"data-dir":                Dir(p.DataDir),
		"listen-client-urls":      clients,
		"advertise-client-urls":   url(p.Address, "2379"),
		"listen-peer-urls":        peers,
		"listen-metrics-urls":     metrics,
		"listen-client-http-urls": "https://127.0.0.1:2382",
		"heartbeat-interval":      heartbeat,
		"election-timeout":        election,
		"snapshot-count":          10000,
		"logger":                  "zap",
		"log-outputs":             []string{"stderr"},
		"feature-gates":           "CompactHashCheck=true",
		"socket-options":          map[string]bool{"reuse-address": true, "reuse-port": true},
		"client-transport-security": map[string]any{
			"cert-file": path.Join(tls, "server-client.crt"), "key-file": path.Join(tls, "server-client.key"),
			"trusted-ca-file": path.Join(tls, "server-ca.crt"), "client-cert-auth": true,
		},
		"peer-transport-security": map[string]any{
			"cert-file": path.Join(tls, "peer-server-client.crt"), "key-file": path.Join(tls, "peer-server-client.key"),
			"trusted-ca-file": path.Join(tls, "peer-ca.crt"), "client-cert-auth": true,
		},
		"watch-progress-notify-interval":       5 * time.Second,
		"bootstrap-defrag-threshold-megabytes": 100,
	}
	if p.Reset {
		config["force-new-cluster"] = true
	} else if p.Initial != (Initial{}) {
		config["initial-advertise-peer-urls"] = p.PeerURL()
		config["initial-cluster"] = p.Initial.Cluster
		config["initial-cluster-state"] = p.Initial.State
	}
	for _, arg := range p.Arguments {
		key, value, err := parseArgument(arg)
		if err != nil {
			return nil, err
		}
		config[key] = value
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("render etcd configuration: %w", err)
	}
	return out, nil
}

// parseArgument reads one etcd-arg. The type follows from the text, by k3s's rules: a number, a duration where the
// key is about time, a list, a truth value, else text.
func parseArgument(arg string) (key string, value any, err error) {
	key, text, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
	if !ok {
		return "", nil, fmt.Errorf("etcd-arg %q: not of the form key=value", arg)
	}
	if !slices.Contains(keys(), key) {
		hint := "see etcd's configuration file"
		if plain, was := strings.CutPrefix(key, "experimental-"); was {
			hint = "etcd has dropped the experimental- keys; try " + plain + " or feature-gates"
		}
		return "", nil, fmt.Errorf("etcd-arg %q: etcd has no such setting; %s", key, hint)
	}
	if slices.Contains(textKeys(), key) {
		return key, text, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return key, n, nil
	}
	for _, word := range []string{"time", "duration", "interval"} {
		if strings.Contains(key, word) {
			if d, err := time.ParseDuration(text); err == nil {
				return key, int64(d), nil
			}
		}
	}
	if strings.HasPrefix(text, "[") {
		var list []any
		if err := yaml.Unmarshal([]byte(text), &list); err != nil {
			return "", nil, fmt.Errorf("etcd-arg %q: not a list: %w", key, err)
		}
		if _, err := json.Marshal(list); err != nil {
			return "", nil, fmt.Errorf("etcd-arg %q: %w", key, err)
		}
		return key, list, nil
	}
	if b, err := strconv.ParseBool(text); err == nil {
		return key, b, nil
	}
	return key, text, nil
}

// textKeys are texts to etcd whatever they look like: it refuses its whole file for a number in their place.
func textKeys() []string {
	return strings.Fields(`name data-dir wal-dir backend-bbolt-freelist-type tls-min-version tls-max-version
initial-cluster-state discovery-srv discovery-srv-name initial-cluster initial-cluster-token auto-compaction-mode
auto-compaction-retention auth-token metrics listen-metrics-urls distributed-tracing-address
distributed-tracing-service-name distributed-tracing-instance-id logger log-level log-format
log-rotation-config-json v2-deprecation listen-peer-urls listen-client-urls listen-client-http-urls
initial-advertise-peer-urls advertise-client-urls cors host-whitelist feature-gates`)
}

// keys are the settings of etcd's configuration file that are single values or lists (go.etcd.io/etcd/server/v3/embed,
// Config). etcd ignores what it does not know, so a mistyped one must be found here.
func keys() []string {
	return strings.Fields(`name data-dir wal-dir snapshot-count snapshot-catchup-entries max-snapshots max-wals
heartbeat-interval election-timeout initial-election-tick-advance backend-batch-interval backend-batch-limit
backend-bbolt-freelist-type quota-backend-bytes max-txn-ops max-request-bytes max-concurrent-streams
self-signed-cert-validity cipher-suites tls-min-version tls-max-version initial-cluster-state discovery-srv
discovery-srv-name initial-cluster initial-cluster-token strict-reconfig-check auto-compaction-mode
auto-compaction-retention grpc-keepalive-min-time grpc-keepalive-interval grpc-keepalive-timeout pre-vote auth-token
bcrypt-cost auth-token-ttl corrupt-check-time compact-hash-check-time compaction-batch-limit
compaction-sleep-interval watch-progress-notify-interval warning-apply-duration bootstrap-defrag-threshold-megabytes
warning-unary-request-duration max-learners force-new-cluster enable-pprof metrics listen-metrics-urls
enable-distributed-tracing distributed-tracing-address distributed-tracing-service-name
distributed-tracing-instance-id distributed-tracing-sampling-rate logger log-level log-format log-outputs
enable-log-rotation log-rotation-config-json enable-grpc-gateway unsafe-no-fsync downgrade-check-time memory-mlock
v2-deprecation listen-peer-urls listen-client-urls listen-client-http-urls initial-advertise-peer-urls
advertise-client-urls cors host-whitelist feature-gates`)
}
