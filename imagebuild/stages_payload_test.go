package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"keelson/imagebuild/definition"
	"keelson/init/layout"
)

// What a medium of arm64, which has no BIOS, installs: the partitions of the raw image, found on the medium.
func TestWritePayload(t *testing.T) {
	bytesOf := func(seed byte, n int) []byte {
		b := make([]byte, n)
		rand.NewChaCha8([32]byte{seed}).Read(b)
		return b
	}
	s := &state{config: Config{Dir: t.TempDir(), Arch: "arm64"}, source: source{Version: "1.2"}}
	kernel, root := bytesOf(1, 100<<10), bytesOf(2, 3<<20+4096)
	live := bytes.Join([][]byte{bytesOf(3, 4096), kernel, []byte("keelson.live=1"), make([]byte, 8<<10)}, nil)
	installed := bytes.Join([][]byte{bytesOf(4, 2048), make([]byte, 2048), kernel, []byte("installed"), make([]byte, 1<<20)}, nil)
	for name, b := range map[string][]byte{"live-esp.img": live, "live.efi": kernel, "esp.img": installed, "root.erofs": root} {
		if err := os.WriteFile(s.part(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := writePayload(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(s.part("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if len(made) > 5*layout.PayloadAlign {
		t.Errorf("payload of %d bytes for a few KiB that the medium does not have", len(made))
	}
	p, data, err := layout.ParsePayload(made)
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != "1.2" || p.BootCode != "" || len(p.Partitions) != 2 {
		t.Fatalf("got version %q, boot code %q, %d partitions", p.Version, p.BootCode, len(p.Partitions))
	}
	medium := map[int][]byte{layout.NumberESP: live, layout.NumberLive: root, layout.NumberPayload: made[data:]}
	for i, want := range []struct {
		label, kind string
		size        int64
		content     []byte
	}{
		{layout.LabelESP, layout.TypeESP, layout.ESPSize, installed},
		{layout.LabelRootA, layout.TypeRootARM64, 4 << 20, root},
	} {
		part := p.Partitions[i]
		got := make([]byte, part.Length)
		for _, e := range part.Extents {
			copy(got[e.To:e.To+e.Length], medium[e.From][e.Offset:])
		}
		if !bytes.Equal(got, want.content) || part.Label != want.label || part.Type != want.kind || part.Size != want.size {
			t.Errorf("%s: got %+v, which is not the raw image's partition", want.label, part)
		}
		if sum := sha256.Sum256(want.content); part.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: wrong sum", want.label)
		}
	}
}

func TestWritePayloadNeedsEveryPart(t *testing.T) {
	s := &state{config: Config{Dir: t.TempDir(), Arch: "arm64"}}
	if err := writePayload(context.Background(), s); err == nil || !strings.Contains(err.Error(), "esp.img") {
		t.Errorf("without any part: got %v", err)
	}
}

// User-data that the image embeds is not beside the one that the installer leaves.
func TestInstalledESP(t *testing.T) {
	s := &state{config: Config{Dir: "/build"}}
	if got := s.installedESP(); got != "/build/esp.img" {
		t.Errorf("an ordinary image: got %s, want the image's own", got)
	}
	s.config.Definition = definition.Definition{UserData: "user-data.yaml"}
	if got := s.installedESP(); got != "/build/installed-esp.img" {
		t.Errorf("an image with user-data: got %s, want one without it", got)
	}
}

func TestISOStages(t *testing.T) {
	if got := names(isoStages([]string{definition.ISO})); got != "live kernel image live esp installed esp payload iso" {
		t.Errorf("got %q", got)
	}
	if got := isoStages([]string{"raw"}); got != nil {
		t.Errorf("nobody wants an ISO: got %v", got)
	}
}
