package verity

import (
	"bytes"
	"testing"
)

// memory is a File in memory.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func TestCheck(t *testing.T) {
	for _, blocks := range []int{1, 2, 128, 129, 300} {
		m := &memory{b: make([]byte, blocks*blockSize)}
		for i := range m.b {
			m.b[i] = byte(i * 7)
		}
		size := int64(len(m.b))
		tree, err := Append(m, size, Derive([]byte("seed")))
		if err != nil {
			t.Fatal(err)
		}
		damage, end, err := Check(m, tree.Verity)
		if err != nil || len(damage) != 0 || end != tree.Size {
			t.Errorf("%d blocks, untouched: got %v, end %d of %d, %v", blocks, damage, end, tree.Size, err)
		}
		for block := int64(0); block < tree.Size/blockSize; block++ {
			at := block * blockSize
			if at == size {
				continue // the superblock is not part of what is hashed
			}
			m.b[at+100] ^= 1
			damage, _, err := Check(m, tree.Verity)
			want := Damage{Tree: at > size, Offset: at}
			if err != nil || len(damage) != 1 || damage[0] != want {
				t.Errorf("%d blocks, block %d changed: got %v, %v, want %v", blocks, block, damage, err, want)
			}
			m.b[at+100] ^= 1
		}
		tree.RootHash[0] ^= 1
		if damage, _, err := Check(m, tree.Verity); err != nil || len(damage) == 0 {
			t.Errorf("%d blocks, another root hash: got %v, %v", blocks, damage, err)
		}
		m.b = m.b[:len(m.b)-1]
		if _, _, err := Check(m, tree.Verity); err == nil && blocks > 1 {
			t.Errorf("%d blocks, cut: got no error", blocks)
		}
	}
}
