package status

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"keelson/node/certificate"
)

func TestConclude(t *testing.T) {
	now := noon()
	r := Report{
		State:    Starting,
		Waiting:  []Wait{{For: "containerd"}, {For: "cluster", Since: now, Reason: "refused"}},
		Etcd:     &Etcd{Name: "cp-1-a", Error: "no leader"},
		Snapshot: &Snapshot{Failed: now, Error: "no space"},
		Disk:     &Disk{Path: "/d", Alarm: CodeDiskFull, Since: now, Text: "full"},
		Certificates: []certificate.Entry{
			{File: "ok", Status: "ok"}, {File: "ca", Status: "warning"}, {File: "leaf", Status: "warning", Renews: now}, {File: "old", Status: "expired"},
		},
		Problems: []string{"unreadable"},
		Reasons:  []Trouble{{Code: "Webhook", Subject: "z"}},
	}
	r.Conclude()
	var got []string
	for _, one := range r.Reasons {
		got = append(got, one.Code+" "+one.Subject)
	}
	want := []string{
		"CACertificateExpiring ca", "CertificateExpired old", "CertificateExpiring leaf", "DiskReserveReleased /d", "EtcdNotAnswering cp-1-a",
		"SnapshotFailed ", "StartWaits cluster", "StatusIncomplete ", "Webhook z",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	well := Report{State: Up, Disk: &Disk{Path: "/d"}, Snapshot: new(Snapshot), Etcd: new(Etcd)}
	if well.Conclude(); len(well.Reasons) != 0 {
		t.Errorf("all is well: got %+v", well.Reasons)
	}
	stopped := Report{State: Stopped}
	if stopped.Conclude(); len(stopped.Reasons) != 1 || stopped.Reasons[0].Code != CodeStopped {
		t.Errorf("got %+v", stopped.Reasons)
	}
}

func TestDiskOfFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk-reserve"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Files{DataDir: dir}.disk()
	if err != nil || d == nil || d.Total == 0 || d.Total < d.Free || d.Reserve < 1<<20 {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err := (Files{DataDir: filepath.Join(dir, "none")}).disk(); d != nil || err != nil {
		t.Errorf("before the first start: %+v, %v", d, err)
	}
	if r := (Files{DataDir: dir}).Report(time.Now()); r.Disk == nil || r.Disk.Path != dir {
		t.Errorf("got %+v", r.Disk)
	}
}
