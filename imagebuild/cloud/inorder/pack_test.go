package inorder

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zlib"
)

func TestPack(t *testing.T) {
	z := zlib.NewWriter(io.Discard)
	pack := Pack(z, z.Close)
	pieces := [][]byte{bytes.Repeat([]byte("one"), 1000), {}, []byte("two")}
	var packed [][]byte
	for _, piece := range pieces {
		b, err := pack(piece)
		if err != nil {
			t.Fatal(err)
		}
		packed = append(packed, b)
	}
	for i, b := range packed { // the later ones did not take the earlier ones' place
		r, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, pieces[i]) {
			t.Errorf("piece %d: got %d bytes, %v, want %d", i, len(got), err, len(pieces[i]))
		}
	}
	if again, err := pack(pieces[0]); err != nil || !bytes.Equal(again, packed[0]) {
		t.Errorf("the same piece again: got other bytes (%v)", err)
	}
	broken := errors.New("broken")
	if _, err := Pack(z, func() error { return broken })(nil); err != broken {
		t.Errorf("an end that fails: got %v, want %v", err, broken)
	}
}
