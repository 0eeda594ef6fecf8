package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/definition"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/internal/testpe"
	"keelson/imagebuild/uki"
	"keelson/init/layout"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// network is a build of small parts up to what machines start from over the network.
func network(t *testing.T) *state {
	t.Helper()
	s, _ := newState(t)
	s.config.Arch, s.config.Out = "amd64", filepath.Join(s.config.Dir, "small.raw")
	s.source.Version, s.cmdline = "1", "quiet keelson.slot=a"
	stub := filepath.Join(s.config.Dir, "stub", "usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err := os.MkdirAll(filepath.Dir(stub), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		stub: testpe.Program(1024, 0), s.part("vmlinuz"): []byte("kernel"), s.part("initrd"): []byte("initramfs"), s.part("root.erofs"): bytes.Repeat([]byte("root"), 5000),
	} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.kernel = kernelOf(s.part("vmlinuz"))
	s.kernel.Release = "6.12"
	s.packages = packagesOf("systemd-boot-efi")
	s.packages[0].Dir = filepath.Join(s.config.Dir, "stub")
	return s
}

func runPXE(t *testing.T, s *state) {
	t.Helper()
	for _, st := range pxeStages([]string{definition.PXE}) {
		if _, err := runStage(context.Background(), s, st); err != nil {
			t.Fatalf("%s: %v", st.name, err)
		}
	}
}

func TestPXE(t *testing.T) {
	s := network(t)
	runPXE(t, s)
	initrd, err := os.ReadFile(s.artefact(pxeInitrdExt))
	if err != nil {
		t.Fatal(err)
	}
	// The initramfs, zeros up to 4 bytes, then an archive with the root.
	rest, ok := bytes.CutPrefix(initrd, []byte("initramfs\x00\x00\x00"))
	if !ok {
		t.Fatalf("it begins with %q", initrd[:20])
	}
	z, err := zstd.NewReader(bytes.NewReader(rest))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var archive bytes.Buffer
	if _, err := archive.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive.Bytes())))
	if err != nil || len(records) != 1 || "/"+records[0].Name != layout.RootInMemory {
		t.Fatalf("got %v, %v, want the root alone", records, err)
	}
	root := make([]byte, records[0].FileSize)
	if _, err := records[0].ReadAt(root, 0); err != nil || !bytes.Equal(root, bytes.Repeat([]byte("root"), 5000)) {
		t.Errorf("the root in the archive is another: %v", err)
	}
	image, err := os.ReadFile(s.artefact(pxeUKIExt))
	if err != nil {
		t.Fatal(err)
	}
	parts, err := uki.Read(image)
	if err != nil || !bytes.Equal(parts.Initrd, initrd) || string(parts.Linux) != "kernel" || parts.Cmdline != "quiet keelson.slot=a keelson.live=memory" {
		t.Errorf("kernel image with %q, %d bytes of initramfs, %v", parts.Cmdline, len(parts.Initrd), err)
	}
	script, err := os.ReadFile(s.artefact(pxeScriptExt))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"#!ipxe\n", "set cmdline quiet keelson.slot=a keelson.live=memory\n", "kernel small.pxe.vmlinuz ${cmdline} ${extra}\ninitrd small.pxe.initrd\nboot\n",
		"\n:efi\nkernel small.pxe.efi ${cmdline} ${extra}\nboot\n",
	} {
		if !strings.Contains(string(script), want) {
			t.Errorf("the script has no %q:\n%s", want, script)
		}
	}
	if got := names(pxeStages([]string{"raw"})); got != "" {
		t.Errorf("nobody wants them: got %s", got)
	}
}

func TestPXEIsSigned(t *testing.T) {
	s := network(t)
	s.signer = testkey.New(t, "signer")
	runPXE(t, s)
	image, err := os.ReadFile(s.artefact(pxeUKIExt))
	if err != nil {
		t.Fatal(err)
	}
	if signer, err := authenticode.Verify(image); err != nil || !signer.Equal(s.signer.Certificate) {
		t.Errorf("got %v, want it signed", err)
	}
	before, err := pxeUKIKey(s)
	if err != nil {
		t.Fatal(err)
	}
	s.signer = nil
	if after, err := pxeUKIKey(s); err != nil || after == before {
		t.Errorf("another signer makes no other image (%v)", err)
	}
}
