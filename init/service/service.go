package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes one service.
type Config struct {
	Name    string
	Argv    []string // the program first, by its full path
	Env     []string // nil means Environment
	Cgroup  string   // its own, made when absent; empty for none
	Log     io.Writer
	OnLine  func(line string) // sees every line of output as well; may be nil
	Backoff Backoff           // zero means DefaultBackoff
	Reaper  *Reaper
	Logger  *slog.Logger
}

// Service keeps one program running.
type Service struct {
	cfg Config

	mu       sync.Mutex
	pid      int
	restarts int
	since    time.Time
}

// New checks the settings.
func New(cfg Config) (*Service, error) {
	if cfg.Name == "" || len(cfg.Argv) == 0 || cfg.Reaper == nil || cfg.Log == nil || cfg.Logger == nil {
		return nil, fmt.Errorf("service %q: name, program, log, logger and reaper are needed", cfg.Name)
	}
	if cfg.Backoff == (Backoff{}) {
		cfg.Backoff = DefaultBackoff()
	}
	if cfg.Env == nil {
		cfg.Env = Environment()
	}
	return &Service{cfg: cfg}, nil
}

// Run starts the program and starts it again whenever it ends, until ctx ends;
// then it sends SIGTERM and waits for the program to go. Who cannot wait so
// long calls Kill.
func (s *Service) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		began := time.Now()
		st, err := s.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := s.cfg.Backoff.After(time.Since(began))
		s.cfg.Logger.Error("service ended", "service", s.cfg.Name, "status", st, "error", err, "restart in", pause)
		s.line(fmt.Sprintf("keelson: service %s: %s: starting again in %s", s.cfg.Name, ending(st, err), pause.Round(time.Millisecond)))
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

func ending(st Status, err error) string {
	if err != nil {
		return err.Error()
	}
	return st.String()
}

// once runs the program from start to end.
func (s *Service) once(ctx context.Context) (Status, error) {
	rd, wr, err := os.Pipe()
	if err != nil {
		return Status{}, fmt.Errorf("service %s: %w", s.cfg.Name, err)
	}
	started := false
	defer func() {
		wr.Close()
		if !started {
			rd.Close()
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return Status{}, fmt.Errorf("service %s: %w", s.cfg.Name, err)
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Dir: "/", Env: s.cfg.Env, Files: []uintptr{null.Fd(), wr.Fd(), wr.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if s.cfg.Cgroup != "" {
		dir, err := openCgroup(s.cfg.Cgroup)
		if err != nil {
			return Status{}, fmt.Errorf("service %s: %w", s.cfg.Name, err)
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	pid, ended, err := s.cfg.Reaper.Start(s.cfg.Argv[0], s.cfg.Argv, attr)
	if err != nil {
		return Status{}, err
	}
	started = true
	wr.Close() // ours: the copier must see the end when the program's is gone
	s.set(pid)
	s.cfg.Logger.Info("service started", "service", s.cfg.Name, "pid", pid)

	// The copier ends when the last writer is gone: a container's shim may keep
	// the pipe longer than the service lives, so nobody waits for it.
	go s.copyLines(rd)

	select {
	case st := <-ended:
		s.set(0)
		return st, nil
	case <-ctx.Done():
		unix.Kill(pid, unix.SIGTERM)
		st := <-ended
		s.set(0)
		return st, nil
	}
}

func openCgroup(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make cgroup %s: %w", filepath.Base(dir), err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return f, nil
}

// maxLine bounds a line; longer ones are cut into several.
const maxLine = 16 << 10

// copyLines takes the output apart into lines until all writers are gone.
func (s *Service) copyLines(r io.ReadCloser) {
	defer r.Close()
	br := bufio.NewReaderSize(r, maxLine)
	for {
		b, _, err := br.ReadLine()
		if len(b) > 0 || err == nil {
			s.line(string(b))
		}
		if err != nil {
			return
		}
	}
}

func (s *Service) line(text string) {
	// A full disk must not stop the service: its output is drained regardless.
	stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000Z ")
	io.WriteString(s.cfg.Log, stamp+text+"\n")
	if s.cfg.OnLine != nil {
		s.cfg.OnLine(text)
	}
}

func (s *Service) set(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid, s.since = pid, time.Now()
}

// Kill ends the program at once, if it runs.
func (s *Service) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid > 0 {
		unix.Kill(s.pid, unix.SIGKILL)
	}
}

// State says in a few words how the service is.
func (s *Service) State() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.since).Round(time.Second)
	if s.pid == 0 {
		return fmt.Sprintf("not running, %d restarts", s.restarts)
	}
	return fmt.Sprintf("running as %d for %s, %d restarts", s.pid, age, s.restarts)
}
