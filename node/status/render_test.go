package status

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/node/certificate"
)

var update = flag.Bool("update", false, "write golden files anew")

func noon() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) }

// examples is a report of each role, and of each state.
func examples() map[string]Report {
	authority := strings.Repeat("5f", 32)
	certificates := []certificate.Entry{
		{File: "/var/lib/rancher/rke2/server/tls/client-admin.crt", Subject: "CN=system:admin", Ends: noon().AddDate(1, 0, 0), Renews: noon().AddDate(0, 8, 0), Status: "ok"},
		{File: "/var/lib/rancher/rke2/agent/serving-kubelet.crt", Subject: "CN=cp-1", Ends: noon().AddDate(0, 0, 10), Renews: noon().AddDate(0, 0, -3), Status: "warning"},
	}
	renewal := &Renewal{File: certificates[1].File, At: certificates[1].Renews}
	members := []Member{
		{Name: "cp-1-aaaaaaaa", ID: "8e9e05c52164694d", Role: Voter}, {Name: "cp-2-bbbbbbbb", ID: "91bc3c398fb3c146", Role: Voter, Leader: true},
		{Name: "cp-3-cccccccc", ID: "fd422379fda50e48", Role: Learner},
	}
	agentBalancers := []Balancer{
		{Name: "rke2-agent-load-balancer", Address: "127.0.0.1:6444", Servers: []Backend{{"10.0.0.2:9345", "ACTIVE", 3}, {"10.0.0.1:9345", "FAILED", 0}}},
		{Name: "rke2-api-server-agent-load-balancer", Address: "127.0.0.1:6443", Servers: []Backend{{"10.0.0.2:6443", "ACTIVE", 5}}},
	}
	base := Report{State: Up, Now: noon(), Started: noon().Add(-time.Hour), Version: "v1.37.2+keelson1", Certificates: certificates, NextRenewal: renewal}
	server := base
	server.Role, server.Node, server.Parts = Server, "cp-1", []string{PartEtcd, PartControls}
	server.Trust = Trust{authority, ByOwn}
	server.Balancers = []Balancer{{Name: "kube-apiserver", Address: "127.0.0.1:6444", Servers: []Backend{{"127.0.0.1:6443", "ACTIVE", 7}}}}
	server.Etcd = &Etcd{Name: "cp-1-aaaaaaaa", Member: "8e9e05c52164694d", Cluster: "cdf818194e3a8c32", Role: Voter, Members: members}
	server.Snapshot = &Snapshot{
		Name: "etcd-snapshot-cp-1-1", Location: "file:///var/lib/rancher/rke2/server/db/snapshots/etcd-snapshot-cp-1-1", Remote: "s3://backups/c1/etcd-snapshot-cp-1-1",
		Created: noon().Add(-5 * time.Hour), Bytes: 4096, Verified: true,
	}
	server.TokenBefore = noon().Add(20 * time.Hour)

	leader := server
	leader.Etcd = &Etcd{Name: "cp-2-bbbbbbbb", Member: "91bc3c398fb3c146", Cluster: "cdf818194e3a8c32", Role: Voter, Leader: true, Members: members}
	leader.Parts, leader.Node, leader.Join, leader.Trust.How = []string{PartEtcd}, "cp-2", "https://10.0.0.1:9345", ByToken
	leader.TokenBefore = time.Time{}
	leader.Snapshot = &Snapshot{Failed: noon().Add(-time.Minute), Error: "save snapshot: not enough disk space\nin /x"}
	leader.Reset = &Reset{Epoch: noon().Unix() - 3600, At: noon().Add(-time.Hour), Rejoined: true, OldData: []string{"etcd-old-1", "etcd-old-2"}}

	controls := server
	controls.Parts, controls.Node, controls.Join, controls.Trust.How = []string{PartControls}, "cp-4", "https://10.0.0.1:9345", ByEarlier
	controls.Etcd, controls.Snapshot, controls.TokenBefore = nil, nil, time.Time{}
	controls.Balancers = []Balancer{{Name: "rke2-etcd-server-load-balancer", Address: "127.0.0.1:2379"}}

	agent := base
	agent.Role, agent.Node, agent.Join = Agent, "w-1", "https://10.0.0.1:9345"
	agent.Trust, agent.Balancers = Trust{authority, ByFirstUse}, agentBalancers

	agent.Disk = &Disk{Path: "/var/lib/rancher/rke2", Total: 20 << 30, Free: 3 << 20, Alarm: "DiskReserveReleased", Since: noon().Add(-time.Minute), Text: "the disk is full"}
	agent.UserData = []string{"nocloud: line 7: packages: is not supported: the system is immutable", "nocloud: line 9: colour: is not a known key"}

	starting := agent
	starting.UserData, starting.Disk = nil, nil
	starting.State, starting.Started, starting.Certificates, starting.NextRenewal = Starting, noon().Add(-3*time.Minute), nil, nil
	starting.Trust, starting.Balancers = Trust{}, nil
	starting.Waiting = []Wait{
		{For: "trust", Since: noon().Add(-150 * time.Second), Reason: "https://10.0.0.1:9345: server cannot be reached:\n\tdial tcp: refused; check the address"},
		{For: "containerd", Since: noon().Add(-8 * time.Second)},
	}

	learner := server
	learner.State, learner.Trust = Starting, Trust{}
	learner.Etcd = &Etcd{Name: "cp-3-cccccccc", Member: "fd422379fda50e48", Cluster: "cdf818194e3a8c32", Role: Learner, Error: "context deadline exceeded"}
	learner.Waiting, learner.Snapshot = []Wait{{For: "etcd", Since: noon().Add(-3 * time.Hour)}}, nil

	stopped := server
	stopped.State, stopped.Started, stopped.Balancers, stopped.TokenBefore = Stopped, time.Time{}, nil, time.Time{}
	stopped.Etcd = &Etcd{Name: "cp-1-aaaaaaaa", Member: "8e9e05c52164694d", Cluster: "cdf818194e3a8c32"}
	stopped.Problems = []string{"/etc/rancher/rke2/config.yaml: line 3: tls-sam: is not a known key; did you mean tls-san?"}
	stopped.Reset = &Reset{State: "a reset was cut off; the next start finishes it"}

	server.Disk = &Disk{Path: "/var/lib/rancher/rke2", Total: 20 << 30, Free: 10 << 30, Reserve: 512 << 20}
	all := map[string]Report{
		"server": server, "etcd": leader, "control-plane": controls, "agent": agent, "starting": starting, "learner": learner, "stopped": stopped,
		"nothing": {State: Stopped, Now: noon(), Version: "v1"},
	}
	for name, r := range all {
		r.Conclude()
		all[name] = r
	}
	return all
}

func TestRenderGolden(t *testing.T) {
	for name, r := range examples() {
		for format, end := range map[string]string{"text": ".txt", "json": ".json"} {
			got, err := Render(r, format)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+end)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
			}
		}
	}
	if _, err := Render(Report{}, "yaml"); err == nil || !strings.Contains(err.Error(), `"yaml"`) {
		t.Errorf("an unknown format: got %v", err)
	}
}

// TestJSONShape: programs read the report, so that no name in it changes unseen, and what is written is read back whole.
func TestJSONShape(t *testing.T) {
	for name, r := range examples() {
		text, err := Render(r, "json")
		if err != nil {
			t.Fatal(err)
		}
		var back Report
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s: read back as %+v, %v", name, back, err)
		}
		var keys map[string]any
		if err := json.Unmarshal(text, &keys); err != nil {
			t.Fatal(err)
		}
		for _, always := range []string{"state", "now", "version", "trust"} {
			if _, ok := keys[always]; !ok {
				t.Errorf("%s: %s is missing", name, always)
			}
		}
		if strings.Contains(string(text), "0001-01-01") {
			t.Errorf("%s: a time that is none was written: %s", name, text)
		}
	}
	var names []string
	for f := range reflect.TypeFor[Report]().Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, tag)
	}
	want := []string{
		"state", "now", "started", "version", "role", "parts", "node", "server", "waiting", "balancers", "trust",
		"tokenBeforeHonouredUntil", "etcd", "snapshot", "reset", "disk", "nextRenewal", "certificates", "userData", "problems", "reasons",
	}
	if !slices.Equal(names, want) {
		t.Errorf("keys: got %q, want %q", names, want)
	}
}

// TestLinesStay: what others have said cannot draw lines of its own.
func TestLinesStay(t *testing.T) {
	r := examples()["starting"]
	r.Waiting[0].Reason = "x\nnode          up since ever"
	text, err := Render(r, "text")
	if err != nil || strings.Count(string(text), "\nnode ") != 0 {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 59 * time.Minute: "59 min", time.Hour: "1 h",
		47 * time.Hour: "47 h", 48 * time.Hour: "2 days", 24000 * time.Hour: "1000 days",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
