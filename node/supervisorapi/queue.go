package supervisorapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// errFull is a queue in which nobody may wait any more.
var errFull = errors.New("too many requests")

// queue lets a number of requests work at a time. Others wait: those of one source in the order they came, the sources
// in turn, so that one that asks for much delays none that asks for little. Only whose sender is known may wait, and
// no more than a number in all and of one source.
type queue struct {
	slots, most, mostOfOne int

	mu      sync.Mutex // guards what follows
	working int
	waiting int
	lines   map[netip.Addr][]chan struct{} // who waits, by source; closed when its turn has come. None is empty.
	turns   []netip.Addr                   // the keys of lines, the next first
}

func newQueue(slots, most, mostOfOne int) *queue {
	return &queue{slots: slots, most: most, mostOfOne: mostOfOne, lines: map[netip.Addr][]chan struct{}{}}
}

// enter waits for a slot until ctx ends. Who got one must leave.
func (q *queue) enter(ctx context.Context, from netip.Addr) error {
	q.mu.Lock()
	if q.working < q.slots { // then nobody waits
		q.working++
		q.mu.Unlock()
		return nil
	}
	if q.waiting >= q.most || len(q.lines[from]) >= q.mostOfOne {
		q.mu.Unlock()
		return errFull
	}
	turn := make(chan struct{})
	if q.lines[from] == nil {
		q.turns = append(q.turns, from)
	}
	q.lines[from] = append(q.lines[from], turn)
	q.waiting++
	q.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !q.giveUp(from, turn) { // its turn came at the same time
		q.leave()
	}
	return ctx.Err()
}

// giveUp takes a waiter out of its line, and tells whether it was still there.
func (q *queue) giveUp(from netip.Addr, turn chan struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := slices.Index(q.lines[from], turn)
	if at < 0 {
		return false
	}
	q.waiting--
	q.lines[from] = slices.Delete(q.lines[from], at, at+1)
	if len(q.lines[from]) == 0 {
		delete(q.lines, from)
		q.turns = slices.DeleteFunc(q.turns, func(a netip.Addr) bool { return a == from })
	}
	return true
}

// leave gives the slot to the next, if somebody waits.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == 0 {
		q.working--
		return
	}
	from := q.turns[0]
	q.turns = slices.Delete(q.turns, 0, 1)
	line := q.lines[from]
	next := line[0]
	rest := slices.Delete(line, 0, 1)
	q.waiting--
	if len(rest) == 0 {
		delete(q.lines, from)
	} else {
		q.lines[from] = rest
		q.turns = append(q.turns, from)
	}
	close(next)
}

// turn waits for the turn of a request whose sender is known. It has answered if there is none; leave ends the turn.
//
// The body is read before: who sends slowly holds no slot meanwhile, and net/http notices a client that goes away only
// once there is nothing left to read. From then on the deadlines are those of waiting and of answering; that of reading
// would end the request's context in its midst.
func (s *Server) turn(w http.ResponseWriter, r *http.Request, q *queue, from netip.Addr) (leave func(), ok bool) {
	body, ok := s.body(w, r)
	if !ok {
		return nil, false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	l := s.config.Limits
	deadline(w, l.Wait+l.WriteTimeout)
	ctx, cancel := context.WithTimeout(r.Context(), l.Wait)
	defer cancel()
	if err := q.enter(ctx, from); err != nil {
		fail(w, http.StatusTooManyRequests, errFull.Error())
		return nil, false
	}
	deadline(w, l.WriteTimeout)
	return q.leave, true
}

// deadline is when a request must be over.
func deadline(w http.ResponseWriter, d time.Duration) {
	c, at := http.NewResponseController(w), time.Now().Add(d)
	_ = errors.Join(c.SetReadDeadline(at), c.SetWriteDeadline(at)) // HTTP/1.1 always can
}
