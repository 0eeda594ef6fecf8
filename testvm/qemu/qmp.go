package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// QMP is a client of QEMU's machine protocol (docs/interop/qmp-spec.txt in
// QEMU's source). Commands go one after the other.
type QMP struct {
	conn    net.Conn
	replies chan message
	closed  chan struct{}
	command sync.Mutex // held from a command to its answer

	mu     sync.Mutex // guards what follows
	events []Event
}

// Event is something that happened to the machine, newest last in Events.
type Event struct {
	Name string          // SHUTDOWN, RESET, POWERDOWN, ...
	Data json.RawMessage // as QEMU's qapi/run-state.json describes it
}

type message struct {
	Greeting *json.RawMessage `json:"QMP"`
	Return   json.RawMessage  `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// ErrGone is returned by commands to a QEMU that has ended.
var ErrGone = errors.New("qemu has ended")

// dial does the handshake on a connection that QEMU already has. gone ends
// the wait for one that died at its command line.
func dial(ctx context.Context, conn net.Conn, gone <-chan struct{}) (*QMP, error) {
	q := &QMP{conn: conn, replies: make(chan message), closed: make(chan struct{})}
	greeting := make(chan struct{})
	go q.read(greeting)
	select {
	case <-greeting:
	case <-gone:
		conn.Close()
		return nil, fmt.Errorf("qmp greeting: %w", ErrGone)
	case <-ctx.Done():
		conn.Close()
		return nil, fmt.Errorf("qmp greeting: %w", ctx.Err())
	}
	if _, err := q.Execute(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *QMP) read(greeting chan<- struct{}) {
	defer close(q.closed)
	dec := json.NewDecoder(q.conn)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			return
		}
		switch {
		case m.Greeting != nil:
			if greeting != nil {
				close(greeting)
				greeting = nil
			}
		case m.Event != "":
			q.mu.Lock()
			q.events = append(q.events, Event{Name: m.Event, Data: m.Data})
			q.mu.Unlock()
		default:
			q.replies <- m
		}
	}
}

// Execute runs one command and returns its result.
func (q *QMP) Execute(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	q.command.Lock()
	defer q.command.Unlock()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	data, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(data, '\n')); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, errors.Join(ErrGone, err))
	}
	select {
	case m := <-q.replies:
		if m.Error != nil {
			return nil, fmt.Errorf("qmp %s: %s: %s", command, m.Error.Class, m.Error.Desc)
		}
		return m.Return, nil
	case <-q.closed:
		return nil, fmt.Errorf("qmp %s: %w", command, ErrGone)
	case <-ctx.Done():
		// The answer may still come and would be taken for the next command's.
		q.conn.Close()
		return nil, fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
}

// Powerdown presses the power button.
func (q *QMP) Powerdown(ctx context.Context) error {
	_, err := q.Execute(ctx, "system_powerdown", nil)
	return err
}

// Reset presses the reset button.
func (q *QMP) Reset(ctx context.Context) error {
	_, err := q.Execute(ctx, "system_reset", nil)
	return err
}

// CtrlAltDel types it on the guest's keyboard.
func (q *QMP) CtrlAltDel(ctx context.Context) error {
	type key struct {
		Type string `json:"type"`
		Data string `json:"data"`
	}
	_, err := q.Execute(ctx, "send-key", map[string]any{
		"keys": []key{{"qcode", "ctrl"}, {"qcode", "alt"}, {"qcode", "delete"}},
	})
	return err
}

// Quit ends QEMU as a host would that is in order: its disks are flushed.
func (q *QMP) Quit(ctx context.Context) error {
	if _, err := q.Execute(ctx, "quit", nil); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	return nil
}

// Events are all that came so far.
func (q *QMP) Events() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]Event(nil), q.events...)
}

// ShutdownReason says why the machine went off (guest-shutdown, guest-reset,
// guest-panic, host-qmp-quit, ...), or "" while it runs and after a power cut.
func (q *QMP) ShutdownReason() string {
	for _, e := range q.Events() {
		var d struct {
			Reason string `json:"reason"`
		}
		if e.Name == "SHUTDOWN" && json.Unmarshal(e.Data, &d) == nil {
			return d.Reason
		}
	}
	return ""
}
