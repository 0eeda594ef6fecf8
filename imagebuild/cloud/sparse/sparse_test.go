package sparse

import (
	"bytes"
	"context"
	"reflect"
	"strings"
	"testing"
)

// image is total bytes with a mark at each place.
func image(total int64, marks ...int64) *bytes.Reader {
	b := make([]byte, total)
	for _, at := range marks {
		b[at] = byte(at%251) + 1
	}
	return bytes.NewReader(b)
}

// put lays blocks out again.
func put(t *testing.T, r *bytes.Reader, total int64, size int) ([]byte, []int64) {
	t.Helper()
	out := make([]byte, (total+int64(size)-1)/int64(size)*int64(size))
	var at []int64
	worker := func() (func([]byte) ([]byte, error), error) {
		return func(b []byte) ([]byte, error) { return b, nil }, nil
	}
	err := Compress(context.Background(), r, total, size, worker, func(b Block) error {
		if len(b.Data) != size {
			t.Errorf("block %d: got %d bytes, want %d", b.Index, len(b.Data), size)
		}
		at = append(at, b.Index)
		copy(out[b.Index*int64(size):], b.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, at
}

func TestCompress(t *testing.T) {
	for _, c := range []struct {
		name  string
		total int64
		marks []int64
		want  []int64
	}{
		{"empty", 0, nil, nil},
		{"zeros", 1000, nil, nil},
		{"first and last byte", 1000, []int64{0, 999}, []int64{0, 15}},
		{"short block at the end", 70, []int64{65}, []int64{1}},
		{"neighbours", 256, []int64{63, 64, 191}, []int64{0, 1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := image(c.total, c.marks...)
			got, at := put(t, r, c.total, 64)
			if !reflect.DeepEqual(at, c.want) {
				t.Errorf("blocks: got %v, want %v", at, c.want)
			}
			want := make([]byte, len(got))
			if n, err := r.ReadAt(want[:c.total], 0); int64(n) != c.total {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the blocks are not the image")
			}
		})
	}
}

func TestExtents(t *testing.T) {
	for _, c := range []struct {
		name  string
		total int64
		marks []int64
		want  []Extent
	}{
		{"empty", 0, nil, nil},
		{"zeros", 1 << 20, nil, nil},
		{"joined", 4096, []int64{10, 512, 1500}, []Extent{{0, 1536}}},
		{"apart", 4096, []int64{0, 1024}, []Extent{{0, 512}, {1024, 512}}},
		{"cut by the end", 1000, []int64{999}, []Extent{{512, 488}}},
		{"over two reads", 64*512*2 + 512, []int64{64*512 - 1, 64 * 512, 64 * 512 * 2}, []Extent{{63 * 512, 1024}, {64 * 512 * 2, 512}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Extents(image(c.total, c.marks...), c.total, 512)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("Extents: got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestShortImage(t *testing.T) {
	r := image(1000, 1)
	if _, err := Extents(r, 2000, 512); err == nil || !strings.Contains(err.Error(), "at 0") {
		t.Errorf("Extents of a file that is too short: got %v", err)
	}
	worker := func() (func([]byte) ([]byte, error), error) {
		return func(b []byte) ([]byte, error) { return b, nil }, nil
	}
	err := Compress(context.Background(), r, 2000, 512, worker, func(Block) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "at 512") {
		t.Errorf("Compress of a file that is too short: got %v", err)
	}
}
