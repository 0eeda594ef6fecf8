package inorder

import (
	"bytes"
	"io"
)

// Compressor is one that can begin anew, as those of package compress can.
type Compressor interface {
	io.Writer
	Reset(io.Writer)
}

// Pack makes a worker's function of a compressor. Each piece is compressed by itself, so that it does not matter which
// worker had it; end is the compressor's Close or Flush. The result is the caller's.
func Pack(z Compressor, end func() error) func([]byte) ([]byte, error) {
	var out bytes.Buffer
	return func(b []byte) ([]byte, error) {
		out.Reset()
		z.Reset(&out)
		if _, err := z.Write(b); err != nil {
			return nil, err
		}
		if err := end(); err != nil {
			return nil, err
		}
		return bytes.Clone(out.Bytes()), nil
	}
}
