package inspect

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"keelson/init/layout"
)

// SumsPath is the file on the ESP that has the hashes of all that is beside
// the root, as sha256sum(1) writes them.
const SumsPath = "/keelson/SHA256SUMS"

// Names in it of what is no file.
const (
	sumBootCode   = "disk:boot-code"
	sumBIOS       = "disk:bios-boot"
	sumCD         = "disk:cd-boot"
	sumSuperblock = "disk:verity-superblock"
)

// Areas are what an image has outside of file systems. BootCode and Core are
// empty where there is no BIOS.
type Areas struct {
	BootCode   []byte
	Core       []byte // of the BIOS boot partition
	CD         []byte // what BIOS starts from a CD, as it stands on the medium; nil: this is none
	Superblock []byte // of the hash tree, one block
}

// RenderSums makes the content of SumsPath for the files of an ESP, whose
// SHA-256 is given in hex.
func RenderSums(files map[string]string, a Areas) []byte {
	sums := maps.Clone(files)
	if len(a.Core) > 0 {
		sums[sumBootCode] = sum(padded(a.BootCode, bootLen))
		sums[sumBIOS] = sum(padded(a.Core, layout.BIOSSize))
	}
	if len(a.CD) > 0 {
		sums[sumCD] = sum(a.CD)
	}
	sums[sumSuperblock] = sum(a.Superblock)
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&b, "%s  %s\n", sums[name], name)
	}
	return b.Bytes()
}

func padded(b []byte, size int) []byte {
	return append(bytes.Clone(b), make([]byte, max(size-len(b), 0))...)
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// parseSums reads what RenderSums wrote.
func parseSums(text []byte) (map[string]string, error) {
	out := map[string]string{}
	in := bufio.NewScanner(bytes.NewReader(text))
	for in.Scan() {
		hash, name, ok := strings.Cut(in.Text(), "  ")
		if raw, err := hex.DecodeString(hash); !ok || err != nil || len(raw) != sha256.Size || name == "" {
			return nil, fmt.Errorf("line %d is not a hash and a name", len(out)+1)
		}
		out[name] = hash
	}
	return out, in.Err()
}

// sums checks the files of the ESP against the hashes on it.
func (r *Report) sums(files map[string][]byte) map[string]string {
	text, ok := files[SumsPath]
	if !ok {
		if files != nil {
			r.problem(regionESP, "%s is not there", SumsPath)
		}
		return nil
	}
	sums, err := parseSums(text)
	if err != nil {
		r.problem(regionESP, "%s: %v", SumsPath, err)
		return nil
	}
	for name, want := range sums {
		if strings.HasPrefix(name, "disk:") {
			continue
		}
		if content, ok := files[name]; !ok {
			r.problem(regionESP, "%s is not there", name)
		} else if sum(content) != want {
			r.problem(regionESP, "%s is not the one that was built", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, ok := sums[name]; !ok && name != SumsPath {
			r.Added = append(r.Added, name)
		}
	}
	return sums
}

// bootArea checks what BIOS starts, and that nothing is between the first table and end.
func (r *Report) bootArea(f io.ReaderAt, t *table, sums map[string]string, end int64) {
	if want, ok := sums[sumBootCode]; ok {
		code := make([]byte, bootLen)
		if _, err := f.ReadAt(code, 0); err != nil || sum(code) != want {
			r.problem(regionMBR, "the boot code is not the one that was built")
		}
	}
	if want, ok := sums[sumBIOS]; ok {
		p, found := t.find(layout.LabelBIOS)
		if !found || p.end-p.start != layout.BIOSSize {
			r.problem(regionBIOS, "it is not there, or has another size")
			return
		}
		content := make([]byte, layout.BIOSSize)
		if _, err := f.ReadAt(content, p.start); err != nil || sum(content) != want {
			r.problem(regionBIOS, "it is not what was built")
		}
	}
	if at, err := firstNonZero(f, span{2*sector + entriesLen, end}); err == nil && at >= 0 {
		r.problem(regionGap, "byte %d should be zero", at)
	}
}
