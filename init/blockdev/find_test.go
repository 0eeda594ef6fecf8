package blockdev

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/uevent"
)

// sysfs makes a /sys/class/block with a disk and its partitions.
func sysfs(t *testing.T, disk string, labels ...string) string {
	t.Helper()
	root := t.TempDir()
	class := filepath.Join(root, "class", "block")
	put := func(dir string, files map[string]string) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(class, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir, filepath.Join(class, filepath.Base(dir))); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(root, "devices", "block", disk)
	put(dir, map[string]string{"size": "1000\n", "uevent": "DEVTYPE=disk\n"})
	for i, label := range labels {
		n := string(rune('1' + i))
		put(filepath.Join(dir, disk+n), map[string]string{
			"partition": n + "\n", "start": n + "000\n", "size": "8\n", "uevent": "DEVTYPE=partition\nPARTN=" + n + "\nPARTNAME=" + label + "\n",
		})
	}
	return class
}

func TestScan(t *testing.T) {
	got, err := Scan(sysfs(t, "vda", "KEELSON-ESP", "with space"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Partition{
		{Name: "vda1", Disk: "vda", Number: 1, Label: "KEELSON-ESP", Start: 1000 * 512, Size: 8 * 512},
		{Name: "vda2", Disk: "vda", Number: 2, Label: "with space", Start: 2000 * 512, Size: 8 * 512},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := Scan(filepath.Join(t.TempDir(), "none")); err != nil || got != nil {
		t.Errorf("no block devices at all: got %v, %v", got, err)
	}
}

func subscription(t *testing.T) *uevent.Subscription {
	t.Helper()
	l, err := uevent.Listen(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skipf("no uevent socket here: %v", err)
	}
	return l.Subscribe("block")
}

func TestFind(t *testing.T) {
	class, sub := sysfs(t, "vda", "KEELSON-ESP", "KEELSON-ROOT-A"), subscription(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	p, err := Find(ended, class, sub, "KEELSON-ROOT-A", nil)
	if err != nil || p.Name != "vda2" {
		t.Errorf("there already: got %+v, %v", p, err)
	}
	_, err = Find(ended, class, sub, "KEELSON-STATE", nil)
	if err == nil || !strings.Contains(err.Error(), "KEELSON-STATE") || !strings.Contains(err.Error(), "/dev/vda2 (KEELSON-ROOT-A)") {
		t.Errorf("absent: got %v, want an error that lists what is there", err)
	}
	_, err = Find(ended, class, sub, "KEELSON-ROOT-A", func(Partition) error { return errors.New("other image") })
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "/dev/vda2 (KEELSON-ROOT-A): other image") {
		t.Errorf("refused: got %v", err)
	}
	_, err = Find(ended, filepath.Join(class, "none"), sub, "KEELSON-ROOT-A", nil)
	if err == nil || !strings.Contains(err.Error(), "no partition at all") {
		t.Errorf("no disk: got %v", err)
	}
}
