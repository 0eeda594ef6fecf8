package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"keelson/init/layout"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func content(b []byte) Content { return Content{Data: bytes.NewReader(b), Len: int64(len(b))} }

// rebuild does what an installer does.
func rebuild(t *testing.T, made []byte, medium map[int][]byte) [][]byte {
	t.Helper()
	p, data, err := layout.ParsePayload(made)
	if err != nil {
		t.Fatal(err)
	}
	medium[layout.NumberPayload] = made[data:]
	var out [][]byte
	for _, part := range p.Partitions {
		b := make([]byte, part.Length)
		for _, e := range part.Extents {
			copy(b[e.To:e.To+e.Length], medium[e.From][e.Offset:])
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != part.SHA256 {
			t.Errorf("%s: not what its sum says", part.Label)
		}
		out = append(out, b)
	}
	return out
}

func TestMake(t *testing.T) {
	kernel, root := random(1, 300_000), random(2, 1<<20)
	pad := func(b []byte, n int) []byte { return append(b, make([]byte, n-len(b))...) }
	// The same file on two volumes of different size, each with data of its own around it.
	live := pad(append(append(random(3, 4096), kernel...), "live"...), 2<<20)
	installed := pad(append(append(pad(random(4, 512), 8192), kernel...), "installed"...), 3<<20)
	made, err := Make("1", "", []Partition{
		{PayloadPartition: layout.PayloadPartition{Number: layout.NumberESP, Label: layout.LabelESP, Type: layout.TypeESP, Size: 4 << 20},
			Content: content(installed), From: layout.NumberESP, Medium: content(live), Within: Range{0, int64(len(live))}},
		{PayloadPartition: layout.PayloadPartition{Number: layout.NumberRootA, Label: layout.LabelRootA, Type: layout.TypeRootAMD64, Size: 1 << 20},
			Content: content(root), From: layout.NumberLive},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(made) > 3*layout.PayloadAlign {
		t.Errorf("payload of %d bytes for 512 and a tail that the medium does not have", len(made))
	}
	got := rebuild(t, made, map[int][]byte{layout.NumberESP: live, layout.NumberLive: root})
	if !bytes.Equal(got[0], installed) || !bytes.Equal(got[1], root) {
		t.Error("the rebuilt partitions differ from those that were to be installed")
	}
	p, _, err := layout.ParsePayload(made)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Partitions[1].Extents); n != 1 {
		t.Errorf("the root: %d extents, want one", n)
	}
	if n := len(p.Partitions[0].Extents); n > 4 {
		t.Errorf("the ESP: %d extents, want a run for the kernel", n)
	}
}

func TestMakeWithOddSizes(t *testing.T) {
	for _, n := range []int{1, 511, 512, 513, 1 << 20, 1<<20 + 1} {
		root := random(5, n)
		made, err := Make("1", "", []Partition{{
			PayloadPartition: layout.PayloadPartition{Number: layout.NumberRootA, Label: layout.LabelRootA, Type: layout.TypeRootAMD64, Size: 2 << 20},
			Content:          content(root), From: layout.NumberLive, Medium: content(random(6, 700)), Within: Range{0, 700},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := rebuild(t, made, map[int][]byte{layout.NumberLive: random(6, 700)}); !bytes.Equal(got[0], root) {
			t.Errorf("%d bytes: rebuilt wrongly", n)
		}
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, bytes.ErrTooLarge }

func TestMakeSaysWhatCannotBeRead(t *testing.T) {
	part := Partition{
		PayloadPartition: layout.PayloadPartition{Number: layout.NumberRootA, Label: layout.LabelRootA, Size: 1 << 20},
		Content:          content([]byte("x")), Medium: Content{Data: broken{}, Len: 1}, Within: Range{0, 1},
	}
	if _, err := Make("1", "", []Partition{part}); err == nil || !strings.Contains(err.Error(), layout.LabelRootA+": read the medium") {
		t.Errorf("got %v", err)
	}
}
