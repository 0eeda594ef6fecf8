package vmdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keelson/imagebuild/cloud/diskfixture"
)

func write(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(context.Background(), &out, bytes.NewReader(raw), int64(len(raw)), Options{Name: "disk.vmdk", ID: 0x1234abcd}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestQemuReadsTheSameDisk(t *testing.T) {
	for _, size := range []int{512, grain, grain + 512, 12<<20 - 1024, perTable*grain + 2<<20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			raw := make([]byte, size)
			if size > 1<<20 {
				raw = diskfixture.Disk(size)
			} else {
				raw[size-1] = 3
			}
			image := diskfixture.File(t, "disk.vmdk", write(t, raw))
			diskfixture.SameAs(t, "vmdk", image, raw)
		})
	}
}

func TestDescription(t *testing.T) {
	image := diskfixture.File(t, "disk.vmdk", write(t, diskfixture.Disk(12<<20)))
	var info struct {
		Size     int64 `json:"virtual-size"`
		Specific struct {
			Data struct {
				Type string `json:"create-type"`
				CID  uint32 `json:"cid"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	out := diskfixture.Tool(t, "qemu-utils", "qemu-img", "info", "-f", "vmdk", "--output=json", image)
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatal(err)
	}
	if info.Size != 12<<20 || info.Specific.Data.Type != "streamOptimized" || info.Specific.Data.CID != 0x1234abcd {
		t.Errorf("qemu-img info: got %+v\n%s", info, out)
	}
	diskfixture.Tool(t, "qemu-utils", "qemu-img", "check", "-f", "vmdk", image)
}

// What a table's grains do not have is not there, the table included.
func TestHoles(t *testing.T) {
	const size = 5 * perTable * grain
	raw := make([]byte, size)
	raw[0], raw[size-1] = 1, 1
	got := write(t, raw)
	// Header, two grains, two tables, a directory, a footer, and markers.
	if len(got) > overhead*sector+2*sector+2*(sector+perTable*4)+6*sector {
		t.Errorf("two grains of 2560 take %d bytes", len(got))
	}
	diskfixture.SameAs(t, "vmdk", diskfixture.File(t, "disk.vmdk", got), raw)
}

func TestReproducible(t *testing.T) {
	raw := diskfixture.Disk(16 << 20)
	if !bytes.Equal(write(t, raw), write(t, raw)) {
		t.Error("two images of the same disk differ")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestRefuses(t *testing.T) {
	some := bytes.NewReader(bytes.Repeat([]byte{1}, 4096))
	for _, c := range []struct {
		name, file string
		size       int64
		want       string
	}{
		{"nothing", "d", 0, "no positive multiple"},
		{"part of a sector", "d", 513, "no positive multiple"},
		{"long name", strings.Repeat("d", 10240), 512, "too long"},
		{"no room", "d", 4096, "no space"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Write(context.Background(), full{}, some, c.size, Options{Name: c.file}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Write: got %v, want an error with %q", err, c.want)
			}
		})
	}
	var out bytes.Buffer
	if err := Write(context.Background(), &out, some, 8192, Options{}); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("Write of a disk that is too short: got %v", err)
	}
}
