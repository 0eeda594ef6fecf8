package mirror

import (
	"io"
	"net/http"
	"time"
)

// chunk is how much is read of containerd or a peer at a time.
const chunk = 256 << 10

// paced is a ResponseWriter whose deadline moves on with each chunk: an answer may be long, but not stall.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
}

// newPaced takes the listener's deadlines off the connection. One for reading would end the request's context.
func newPaced(w http.ResponseWriter, stall time.Duration) *paced {
	p := &paced{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
	_ = p.control.SetReadDeadline(time.Time{}) // a writer without deadlines has none to take off
	p.progress()
	return p
}

func (p *paced) progress() { _ = p.control.SetWriteDeadline(time.Now().Add(p.stall)) }

// ReadFrom implements io.ReaderFrom, which http.ServeContent copies with.
func (p *paced) ReadFrom(from io.Reader) (int64, error) {
	buffer := make([]byte, chunk)
	var sum int64
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.progress()
			written, err := p.Write(buffer[:n])
			sum += int64(written)
			if err != nil {
				return sum, err
			}
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}
