package scenario

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"keelson/init/layout"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// A flipped byte in the root partition is never executed: the boot stops with
// a message that names the partition. One byte at a time, in blocks that every
// boot reads.
func TestScenario6FlippedByte(t *testing.T) {
	needVM(t)
	ctx := within(t, 5*time.Minute)
	damaged := filepath.Join(the.boot, "damaged.raw")
	defer os.Remove(damaged)
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", the.image, damaged).CombinedOutput(); err != nil {
		t.Fatalf("copy image: %v: %s", err, out)
	}
	root, err := machine.PartitionOffset(damaged, layout.LabelRootA)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range positions(t, damaged, root) {
		t.Run(at.name, func(t *testing.T) {
			flip(t, damaged, at.offset)
			defer flip(t, damaged, at.offset)
			m := newMachine(t, qemu.Direct, func(c *machine.Config) { c.Image = damaged })
			start(t, m)
			says(t, m, m.Mark(), `keelson: halted: .*root partition .*`+layout.LabelRootA+`.* is damaged`)
			for _, l := range m.Console().Since(m.Mark()) {
				if at.never != "" && bytes.Contains([]byte(l.Text), []byte(at.never)) {
					t.Errorf("console: got %q, which the damaged program must not have come to", l.Text)
				}
			}
		})
	}
}

// position is a byte of the image.
type position struct {
	name   string
	offset int64
	never  string // what must not stand on the console
}

// positions: EROFS' superblock, the code at which programs start (read from
// the partition as the kernel does, found by their content), and the top block
// of the hash tree, which every other is checked with.
func positions(t *testing.T, image string, root int64) []position {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmdline, err := os.ReadFile(filepath.Join(the.boot, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	verity := verityOf(t, string(cmdline))
	size := int64(verity.HashOffset())
	data := make([]byte, size)
	if _, err := f.ReadAt(data, root); err != nil {
		t.Fatal(err)
	}
	tree, err := erofs.Open(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return []position{
		{"superblock", root + 1024 + 64, "keelson: boot: complete"}, // EROFS_SUPER_OFFSET, fs/erofs/erofs_fs.h
		{"node", root + entryBlock(t, tree, data, layout.Node), "keelson: node: "},
		{"state's file system check", root + entryBlock(t, tree, data, layout.Mke2fs), "keelson: boot: complete"},
		{"hash tree", root + size + layout.BlockSize + 100, "keelson: boot: complete"}, // the superblock of verity is before it
	}
}

// entryBlock finds where the page of a program's entry point is in the file
// system.
func entryBlock(t *testing.T, tree fs.FS, data []byte, path string) int64 {
	t.Helper()
	f, err := tree.Open(path[1:])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	program, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	header, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, p := range header.Progs {
		if p.Type != elf.PT_LOAD || header.Entry < p.Vaddr || header.Entry >= p.Vaddr+p.Filesz {
			continue
		}
		at := int64(header.Entry-p.Vaddr+p.Off) / layout.BlockSize * layout.BlockSize
		page := program[at : at+layout.BlockSize]
		for block := 0; block+layout.BlockSize <= len(data); block += layout.BlockSize {
			if bytes.Equal(data[block:block+layout.BlockSize], page) {
				return int64(block) + int64(header.Entry-p.Vaddr+p.Off)%layout.BlockSize
			}
		}
		t.Fatalf("%s: its page is not in the file system", path)
	}
	t.Fatalf("%s: it has no entry point", path)
	return 0
}

// flip turns a byte into another, and back when done twice.
func flip(t *testing.T, image string, at int64) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(fmt.Errorf("flip byte %d: %w", at, err))
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(fmt.Errorf("flip byte %d: %w", at, err))
	}
}
