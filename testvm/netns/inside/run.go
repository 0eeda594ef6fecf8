package inside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keelson/init/apply"
	"keelson/init/identity"
	"keelson/init/kernel"
	"keelson/init/layout"
	"keelson/init/service"
	"keelson/init/userdata"
)

// Enter waits until the harness has put this process into its cgroups, enters a namespace of them, and starts the
// program anew: a thread enters alone, and only a new program has all of its threads inside.
func Enter(pipe io.Reader, again []string) error {
	var first [1]byte
	if _, err := io.ReadFull(pipe, first[:]); err != nil || first[0] != Go {
		return fmt.Errorf("wait for the harness: got %q, %v", first, err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter a namespace of cgroups: %w", err)
	}
	if err := syscall.Exec("/proc/self/exe", again, []string{}); err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	return nil
}

// machine is what runs.
type machine struct {
	mu  sync.Mutex // one line on the console at a time
	out io.Writer
	log *slog.Logger
}

// Run is the machine's life: it ends with the pipe or with SIGTERM, and all processes end with it.
func Run(pipe io.Reader, console io.Writer) error {
	began := time.Now()
	unix.CloseOnExec(Pipe)
	m := &machine{out: console, log: slog.New(slog.DiscardHandler)}
	in := json.NewDecoder(pipe)
	var c Config
	if err := in.Decode(&c); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in.Buffered())
		_, _ = io.Copy(io.Discard, pipe)
		os.Exit(0) // the harness is gone: nobody may outlive it
	}()
	reaper := service.NewReaper()
	go func() { cancel(reaper.Run(context.WithoutCancel(ctx))) }()

	var config *userdata.Config
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"volatile folders", func() error { return fileSystems(c) }},
		{"sysctls", sysctls},
		{"user-data", func() (err error) { config, err = m.settings(c); return err }},
	} {
		at := time.Now()
		if err := step.do(); err != nil {
			m.say("boot: %s: %s", step.name, strings.ReplaceAll(err.Error(), "\n", "; "))
			if !errors.Is(err, errRefused) {
				m.say("halted: %s: %s", step.name, strings.ReplaceAll(err.Error(), "\n", "; "))
			}
			<-ctx.Done()
			return nil
		}
		m.say("boot: %s: ok (%d ms)", step.name, time.Since(at).Milliseconds())
	}
	return m.node(ctx, reaper, config.Role, began)
}

func (m *machine) say(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprintf(m.out, "keelson: "+format+"\n", args...)
}

// sysctls applies the image's for the network, which are the machine's own. Some of the network's belong to the whole
// kernel after all, and are absent here.
func sysctls() error {
	all, err := kernel.LoadSysctls(layout.SysctlDir)
	if err != nil {
		return err
	}
	var own []kernel.Setting
	for _, s := range all {
		if strings.HasPrefix(s.Key, "net.") {
			s.Optional = true
			own = append(own, s)
		}
	}
	return kernel.ApplySysctls("/proc/sys", own)
}

// errRefused is a document that must not be acted upon.
var errRefused = errors.New("the user-data is refused")

// settings reads and applies the user-data as init does.
func (m *machine) settings(c Config) (*userdata.Config, error) {
	id, err := identity.EnsureMachineID(layout.MachineID)
	if err != nil {
		return nil, err
	}
	config, problems := userdata.Load(c.Documents)
	for _, p := range problems {
		m.say("user-data: %s", p)
	}
	if userdata.Refused(problems) {
		m.say("waiting for corrected user-data")
		return nil, errRefused
	}
	at := apply.DefaultConfig()
	if err := apply.Apply(at, config); err != nil {
		return nil, err
	}
	name, err := identity.EnsureHostname(layout.Hostname, config.Hostname, id)
	if err != nil {
		return nil, err
	}
	if err := apply.Names(at, name, config.FQDN, id, unix.Sethostname); err != nil {
		return nil, err
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver "+c.NameServer+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("write resolv.conf: %w", err)
	}
	if config.Role == "" {
		config.Role = userdata.RoleServer
	}
	return config, nil
}

// logLimit bounds the log files of one service together, as init's does.
const logLimit = 16 << 20

// patience is how long node may take to end before everything ends.
const patience = 20 * time.Second

// node runs it until ctx ends.
func (m *machine) node(ctx context.Context, reaper *service.Reaper, role string, began time.Time) error {
	file, err := service.OpenLogFile(filepath.Join(layout.Logs, "node.log"), logLimit)
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := service.New(service.Config{
		Name: "node", Argv: []string{layout.Node, role}, Log: file, Reaper: reaper, Logger: m.log,
		OnLine: func(line string) {
			if rest, ok := strings.CutPrefix(line, "keelson: "); ok {
				m.say("%s", rest)
			}
		},
	})
	if err != nil {
		return err
	}
	m.say("boot: complete in %.3f s", time.Since(began).Seconds())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-ctx.Done()
	select {
	case err = <-ended:
	case <-time.After(patience):
	}
	unix.Sync()
	return err
}

// Encode is what the harness writes after Go.
func (c Config) Encode() ([]byte, error) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(c); err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	return b.Bytes(), nil
}
