package install

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/blockdev"
	"keelson/init/layout"
)

// A stick has a device for each partition, a CD one for all.
func TestOpenMedium(t *testing.T) {
	load, _, parts := medium(t, smallESP())
	head, err := layout.RenderPayload(load)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[int][]byte{layout.NumberBIOS: parts[layout.NumberBIOS], layout.NumberLive: parts[layout.NumberLive], layout.NumberPayload: append(head, "own data"...)}
	dev := t.TempDir()
	var cd []byte
	starts := map[int]uint64{}
	for number, b := range contents {
		starts[number] = uint64(len(cd))
		cd = append(cd, b...)
		if err := os.WriteFile(filepath.Join(dev, fmt.Sprintf("sda%d", number)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dev, "sr0"), cd, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, find := range map[string]func(int) (blockdev.Partition, error){
		"stick": func(n int) (blockdev.Partition, error) {
			return blockdev.Partition{Name: fmt.Sprintf("sda%d", n), Start: 1 << 20, Size: uint64(len(contents[n]))}, nil
		},
		"CD": func(n int) (blockdev.Partition, error) {
			return blockdev.Partition{Name: "sr0", Undivided: true, Start: starts[n], Size: uint64(len(contents[n]))}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := OpenMedium(dev, find)
			if err != nil {
				t.Fatal(err)
			}
			if m.Payload.Version != "1.2" {
				t.Errorf("payload of version %q", m.Payload.Version)
			}
			for number, want := range map[int][]byte{layout.NumberLive: contents[layout.NumberLive], layout.NumberPayload: []byte("own data")} {
				for range 2 {
					r, err := m.Source(number)
					if err != nil {
						t.Fatal(err)
					}
					got := make([]byte, len(want))
					if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
						t.Errorf("partition %d: got other bytes, %v", number, err)
					}
					if n, err := r.ReadAt(got, 1); n != len(want)-1 || err != io.EOF {
						t.Errorf("partition %d: got %d bytes from 1 on, %v, want its end", number, n, err)
					}
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenMediumWithoutPayload(t *testing.T) {
	dev := t.TempDir()
	if err := os.WriteFile(filepath.Join(dev, "sda4"), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, find := range map[string]func(int) (blockdev.Partition, error){
		"medium sr0 has no partition 4": func(int) (blockdev.Partition, error) {
			return blockdev.Partition{}, fmt.Errorf("medium sr0 has no partition 4")
		},
		"payload: no head": func(int) (blockdev.Partition, error) { return blockdev.Partition{Name: "sda4", Size: 8192}, nil },
		"open the medium":  func(int) (blockdev.Partition, error) { return blockdev.Partition{Name: "sdz4", Size: 8192}, nil },
	} {
		if _, err := OpenMedium(dev, find); err == nil || !strings.Contains(err.Error(), "this medium cannot install a disk: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
