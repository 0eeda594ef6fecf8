package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/etcdsnapshot"
	"keelson/node/trust"
)

func TestParseSnapshot(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // the request's body
	}{
		{"save", `{"operation":"save"}`},
		{"save --name before-upgrade --snapshot-compress", `{"operation":"save","name":["before-upgrade"],"compress":true}`},
		{"save --etcd-snapshot-name x --etcd-snapshot-compress=false --etcd-snapshot-dir /d --etcd-snapshot-retention 3",
			`{"operation":"save","name":["x"],"compress":false,"dir":"/d","retention":3}`},
		{"ls -o json", `{"operation":"list"}`},
		{"delete a -o yaml b", `{"operation":"delete","name":["a","b"]}`},
		{"prune --snapshot-retention=0", `{"operation":"prune","retention":0}`},
		{"list --s3", `{"operation":"list","s3":{}}`},
		{"save --s3-bucket b --s3-secret-key k --etcd-s3-access-key a --s3-timeout 2m --s3-insecure --s3-retention 4",
			`{"operation":"save","s3":{"bucket":"b","secretKey":"k","accessKey":"a","timeout":"2m0s","insecure":true,"retention":4}}`},
	} {
		got, err := parseSnapshot(strings.Fields(c.args), io.Discard)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		body, err := got.body()
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
		var a, b any
		if json.Unmarshal(body, &a) != nil || json.Unmarshal([]byte(c.want), &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%s: got %s, want %s", c.args, body, c.want)
		}
		if got.tokenFile != "" || got.dataDir != "/var/lib/rancher/rke2" || got.server != "https://127.0.0.1:9345" {
			t.Errorf("%s: token file %q, folder %q, server %q", c.args, got.tokenFile, got.dataDir, got.server)
		}
	}
	for args, says := range map[string]string{
		"":               "a verb is needed",
		"restore":        "unknown verb",
		"save now":       `unexpected "now"`,
		"delete":         "names are needed",
		"list -o table2": "text, json and yaml",
		"save --nope":    "nope",
	} {
		if _, err := parseSnapshot(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", args, err, says)
		}
	}
}

// noEtcd is a server whose etcd is down: what needs only files works.
type noEtcd struct{ etcdsnapshot.Etcd }

func (noEtcd) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	return nil, io.ErrUnexpectedEOF
}

func (noEtcd) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	return nil, io.ErrUnexpectedEOF
}

func TestSnapshotsAgainstTheHandler(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"etcd-snapshot-cp-1-1700000000", "etcd-snapshot-cp-1-1700000001.zip"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0123456789"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := etcdsnapshot.New(etcdsnapshot.Config{Etcd: noEtcd{}, NodeName: "cp-1", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	machine := newTokenMachine(t)
	machine.snapshot = m.Handler()
	run := func(args string) (string, error) {
		var out, notes bytes.Buffer
		err := snapshots(t.Context(), append(strings.Fields(args), "--server", machine.url, "--data-dir", machine.dir), &out, &notes)
		return out.String(), err
	}
	text := func(args string) string {
		t.Helper()
		out, err := run(args)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	got := text("list")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "Name") || !strings.Contains(strings.Join(strings.Fields(lines[1]), " "), "file://"+dir+"/etcd-snapshot-cp-1-1700000000 10 2023") ||
		!strings.HasSuffix(lines[2], "2023-11-14T22:13:21Z") {
		t.Errorf("got\n%s", got)
	}
	var list etcdsnapshot.List
	if err := json.Unmarshal([]byte(text("list -o json")), &list); err != nil || len(list.Items) != 2 {
		t.Errorf("%v: %+v", err, list)
	}
	if got := text("list -o yaml"); !strings.Contains(got, "kind: ETCDSnapshotFileList\n") {
		t.Errorf("got %s", got)
	}
	if got := text("delete etcd-snapshot-cp-1-1700000000"); got != "deleted etcd-snapshot-cp-1-1700000000\n" {
		t.Errorf("got %q", got)
	}
	if _, err := run("delete gone"); err == nil || !strings.Contains(err.Error(), "there is none of this name") {
		t.Errorf("got %v", err)
	}
	if _, err := run("save"); err == nil || !strings.Contains(err.Error(), "ask etcd member") {
		t.Errorf("got %v", err)
	}
	machine.password = "another"
	if _, err := run("list"); !errors.Is(err, trust.ErrWrongToken) {
		t.Errorf("another cluster's token: got %v", err)
	}
}

func TestSnapshotsNeedAServer(t *testing.T) {
	err := snapshots(context.Background(), []string{"list", "--data-dir", t.TempDir()}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "where this is no server") {
		t.Errorf("got %v", err)
	}
}
