package verity

import (
	"bytes"
	"fmt"
	"io"

	"keelson/init/layout"
)

// Damage is a block that is not what the root hash vouches for.
type Damage struct {
	Tree   bool  // a block of the hash tree, not of the data
	Offset int64 // in r
}

// Check hashes all data anew and compares with the tree behind it and with
// the root hash. It returns the first damage of the data and the first of the
// tree, and the size of data, superblock and tree together.
func Check(r io.ReaderAt, v layout.Verity) (damage []Damage, end int64, err error) {
	size := int64(v.HashOffset())
	levels, err := hashLevels(r, size, v.Salt)
	if err != nil {
		return nil, 0, fmt.Errorf("verity: %w", err)
	}
	sound := bytes.Equal(levels[len(levels)-1], v.RootHash)
	at := size + blockSize // behind the superblock, the highest level first
	want := v.RootHash
	for _, level := range reversed(levels[:len(levels)-1]) {
		stored := make([]byte, len(level))
		if _, err := r.ReadAt(stored, at); err != nil {
			return nil, 0, fmt.Errorf("verity: read tree: %w", err)
		}
		// What is stored is judged by the level above it, as the kernel does.
		digests := make([]byte, padded(int64(len(stored)/blockSize*digestSize)))
		hashBlocks(digests, stored, v.Salt)
		n := min(len(digests), len(want))
		if i := firstDifference(digests[:n], want[:n], digestSize); i >= 0 && !hasTree(damage) {
			damage = append(damage, Damage{Tree: true, Offset: at + int64(i)*blockSize})
		}
		at, want = at+int64(len(stored)), stored
	}
	if !sound && !hasTree(damage) {
		// The tree is sound: where its lowest level is not that of the data,
		// the data is damaged.
		first := 0
		if len(levels) > 1 {
			first = max(firstDifference(levels[0], want, digestSize), 0)
		}
		damage = append(damage, Damage{Offset: int64(first) * blockSize})
	} else if !sound {
		damage = append(damage, Damage{Offset: 0})
	}
	return damage, at, nil
}

func hasTree(damage []Damage) bool {
	for _, d := range damage {
		if d.Tree {
			return true
		}
	}
	return false
}

// firstDifference is the index of the first piece of size bytes that differs, -1 without any.
func firstDifference(a, b []byte, size int) int {
	for i := 0; i < min(len(a), len(b))/size; i++ {
		if !bytes.Equal(a[i*size:(i+1)*size], b[i*size:(i+1)*size]) {
			return i
		}
	}
	return -1
}
