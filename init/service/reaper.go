package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Status is how a child ended.
type Status struct {
	PID  int
	Wait unix.WaitStatus
}

func (s Status) String() string {
	if s.Wait.Signaled() {
		return fmt.Sprintf("killed by %s", unix.SignalName(s.Wait.Signal()))
	}
	return fmt.Sprintf("exit status %d", s.Wait.ExitStatus())
}

// Reaper owns the children of PID 1.
type Reaper struct {
	sigchld chan os.Signal

	mu     sync.Mutex
	owners map[int]chan Status
	reaped int // children that nobody here had started
}

// NewReaper makes the reaper; children started before Run are kept until then.
func NewReaper() *Reaper {
	r := &Reaper{sigchld: make(chan os.Signal, 1), owners: map[int]chan Status{}}
	signal.Notify(r.sigchld, unix.SIGCHLD)
	return r
}

// Run takes every status until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	defer signal.Stop(r.sigchld)
	for {
		r.collect()
		select {
		case <-r.sigchld: // one signal may stand for many children
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Reaper) collect() {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return // ECHILD, or none has ended
		}
		// Start holds the lock from fork to registration, so an owner is found
		// however short its child's life was.
		r.mu.Lock()
		owner, ok := r.owners[pid]
		delete(r.owners, pid)
		if !ok {
			r.reaped++
		}
		r.mu.Unlock()
		if ok {
			owner <- Status{pid, ws}
		}
	}
}

// Start forks and returns the channel (capacity 1) that gets the status.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", path, err)
	}
	ch := make(chan Status, 1)
	r.owners[pid] = ch
	return pid, ch, nil
}

// Alive does a round through the reaper's lock, for the watchdog.
func (r *Reaper) Alive() (children, reaped int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.owners), r.reaped
}

// maxOutput bounds what Run keeps of a tool's output.
const maxOutput = 64 << 10

// Tool runs a program to its end and returns its output, both streams
// together. A program that ran has a nil error; killed ones have code -1.
func (r *Reaper) Tool(ctx context.Context, argv ...string) (string, int, error) {
	rd, wr, err := os.Pipe()
	if err != nil {
		return "", -1, fmt.Errorf("start %s: %w", argv[0], err)
	}
	defer rd.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		wr.Close()
		return "", -1, fmt.Errorf("start %s: %w", argv[0], err)
	}
	pid, ended, err := r.Start(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: Environment(), Files: []uintptr{null.Fd(), wr.Fd(), wr.Fd()},
	})
	null.Close()
	wr.Close()
	if err != nil {
		return "", -1, err
	}
	stop := context.AfterFunc(ctx, func() { unix.Kill(pid, unix.SIGKILL) })
	defer stop()
	out, _ := io.ReadAll(io.LimitReader(rd, maxOutput))
	io.Copy(io.Discard, rd) // keep the pipe open and empty until it ends
	st := <-ended
	if ctx.Err() != nil {
		return string(out), -1, fmt.Errorf("run %s: %w", argv[0], ctx.Err())
	}
	if st.Wait.Signaled() {
		return string(out), -1, nil
	}
	return string(out), st.Wait.ExitStatus(), nil
}

// Environment is what every program of PID 1 starts with.
func Environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=linux", "LANG=C.UTF-8"}
}
