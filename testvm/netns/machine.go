package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keelson/init/userdata"
	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/machine"
	"keelson/testvm/netns/inside"
)

// Config is one machine. All but Families and Follow must be given.
type Config struct {
	Name string // of its port on the LAN
	N    int    // 1 to 253: its place in the address plan
	Dir  string // its files; made, and emptied of a machine that was there
	Init string // the program, of Build
	Root *Root
	LAN  *LAN
	// Families are those of its addresses.
	Families Families
	Seed     cidata.Volume      // a token is added as vendor-data where it has none
	Follow   func(console.Line) // hears every line of the console
}

// Machine is one, running or not.
type Machine struct {
	config  Config
	token   string
	cgroups *cgroups
	console *console.Console
	log     *os.File
	doors   []*forwarder // to the API server and the supervisor
	ports   []int        // of them on the host's loopback

	net     atomic.Pointer[os.File] // network namespace of the present boot; nil while it is off
	mark    console.Mark
	boot    int
	started time.Time
	*running
}

// running is one boot.
type running struct {
	cmd  *exec.Cmd
	pipe *os.File // the machine lives while it is open
	done chan struct{}
	err  error      // of the wait, once done is closed
	read chan error // of the console
}

var _ machine.Computer = (*Machine)(nil)

// insidePorts are those that the host reaches: kube-apiserver's and the supervisor's.
func insidePorts() []int { return []int{6443, 9345} }

// New makes a machine with an empty disk. It is off.
func New(c Config) (*Machine, error) {
	m := &Machine{config: c}
	if err := m.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("make machine %s: %w", c.Name, err), m.Close())
	}
	return m, nil
}

func (m *Machine) prepare() (err error) {
	if err := Check(); err != nil {
		return err
	}
	if m.config.Dir, err = filepath.Abs(m.config.Dir); err != nil {
		return err
	}
	if err := os.RemoveAll(m.config.Dir); err != nil {
		return err
	}
	for _, dir := range []string{"root", "state"} {
		if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
			return err
		}
	}
	if m.cgroups, err = newCgroups(m.config.Name); err != nil {
		return err
	}
	if err := m.Reseed(m.config.Seed); err != nil {
		return err
	}
	if m.log, err = os.Create(m.path("console.log")); err != nil {
		return err
	}
	m.console = console.New(m.log)
	if m.config.Follow != nil {
		m.console.Follow(m.config.Follow)
	}
	for _, port := range insidePorts() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		m.ports = append(m.ports, listener.Addr().(*net.TCPAddr).Port)
		m.doors = append(m.doors, forward(listener, func(ctx context.Context) (net.Conn, error) {
			return m.Dial(ctx, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)).String())
		}))
	}
	return nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.config.Dir, name) }

// Reseed sets other user-data, from the next boot on.
func (m *Machine) Reseed(seed cidata.Volume) error {
	seed, token, err := seed.WithToken(m.token)
	if err != nil {
		return err
	}
	m.token, m.config.Seed = token, seed
	return nil
}

// Move gives the machine, which is off, another place in the address plan: its router has another lease for it.
func (m *Machine) Move(n int) error {
	if m.alive() {
		return fmt.Errorf("move machine %s: it runs", m.config.Name)
	}
	m.config.N = n
	return nil
}

// Start switches the machine on.
func (m *Machine) Start(ctx context.Context) error {
	if m.alive() {
		return fmt.Errorf("start machine %s: it runs", m.config.Name)
	}
	if err := m.start(); err != nil {
		return fmt.Errorf("start machine %s: %w", m.config.Name, err)
	}
	return nil
}

func (m *Machine) start() error {
	if err := writeHostFiles(m.path("state")); err != nil {
		return err
	}
	settings, err := m.settings().Encode()
	if err != nil {
		return err
	}
	if err := m.launch(); err != nil {
		return err
	}
	if _, err := m.pipe.Write(append([]byte{inside.Go}, settings...)); err != nil {
		return errors.Join(err, m.end())
	}
	return nil
}

// launch starts the process of the machine, which waits for its settings, in its namespaces, cgroups and network.
func (m *Machine) launch() error {
	out, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirs.Close()
	forIt, pipe, err := os.Pipe()
	if err != nil {
		out.Close()
		return err
	}
	defer forIt.Close()
	cmd := exec.Command(m.config.Init)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = theirs, theirs, []*os.File{forIt} // descriptor inside.Pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	m.started = time.Now()
	if err := cmd.Start(); err != nil {
		out.Close()
		pipe.Close()
		return err
	}
	r := &running{cmd: cmd, pipe: pipe, done: make(chan struct{}), read: make(chan error, 1)}
	m.boot++
	m.mark = m.console.Mark()
	m.console.Start()
	go func() { r.read <- errors.Join(m.console.Read(out), out.Close()) }()
	go func() {
		r.err = cmd.Wait()
		close(r.done)
	}()
	m.running = r
	if err := m.furnish(cmd.Process.Pid); err != nil {
		return errors.Join(err, m.end())
	}
	return nil
}

// furnish gives the process its cgroups and its network.
func (m *Machine) furnish(pid int) error {
	if err := m.cgroups.clear(); err != nil {
		return fmt.Errorf("clear cgroups: %w", err)
	}
	if err := m.cgroups.enter(pid); err != nil {
		return err
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return err
	}
	m.net.Store(ns)
	return m.config.LAN.plug(m.config.Name, m.config.N, m.config.Families, ns)
}

func (m *Machine) settings() inside.Config {
	nameServer := Gateway()
	if m.config.Families == IPv6 {
		nameServer = Gateway6()
	}
	c := inside.Config{
		Root: m.config.Root.path, Folder: m.config.Root.folder, At: m.path("root"), State: m.path("state"),
		NameServer: nameServer.String(), Cgroups: m.cgroups.inside(),
	}
	add := func(to *[]userdata.Document, name string, data []byte) {
		if data != nil {
			*to = append(*to, userdata.Document{Source: name, Data: data})
		}
	}
	add(&c.Documents.Vendor, "vendor-data", m.config.Seed.VendorData)
	add(&c.Documents.User, "user-data", m.config.Seed.UserData)
	add(&c.Documents.Meta, "meta-data", m.config.Seed.MetaData)
	return c
}

// alive tells whether the machine is on.
func (m *Machine) alive() bool {
	if m.running == nil {
		return false
	}
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// end kills what runs, all of it at once, and cleans up behind it: PID 1 of a namespace takes everybody along, and its
// own end is the end of the last (pid_namespaces(7)).
func (m *Machine) end() error {
	if m.running == nil {
		return nil
	}
	r := m.running
	m.running = nil
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end machine %s: %w", m.config.Name, err)
	}
	<-r.done
	errs := []error{<-r.read, r.pipe.Close(), m.config.LAN.unplug(m.config.Name)}
	if ns := m.net.Swap(nil); ns != nil {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}

// PowerCut ends every process at once. What they had written stays, since the host keeps it.
func (m *Machine) PowerCut(context.Context) error {
	if !m.alive() {
		return fmt.Errorf("power cut: machine %s is not running", m.config.Name)
	}
	if err := m.end(); err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	return m.console.Note(fmt.Sprintf("--- testvm: power cut ends boot %d ---", m.boot))
}

// Shutdown tells PID 1 to end, and waits until it has.
func (m *Machine) Shutdown(ctx context.Context) error {
	if !m.alive() {
		return fmt.Errorf("shut down: machine %s is not running", m.config.Name)
	}
	if err := m.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		return fmt.Errorf("shut down machine %s: %w; its last lines:\n%s", m.config.Name, ctx.Err(), m.console.Tail(30))
	}
	ended := m.err
	if err := errors.Join(ended, m.end()); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	return m.console.Note(fmt.Sprintf("--- testvm: shutdown ends boot %d ---", m.boot))
}

// Close ends the machine as it is and lets go of what it had of the host. Its files stay.
func (m *Machine) Close() error {
	errs := []error{m.end()}
	for _, d := range m.doors {
		errs = append(errs, d.Close())
	}
	m.doors = nil
	if m.cgroups != nil {
		errs = append(errs, m.cgroups.remove())
		m.cgroups = nil
	}
	if m.log != nil {
		errs = append(errs, m.log.Close())
		m.log = nil
	}
	return errors.Join(errs...)
}

// Remove closes the machine and deletes its files.
func (m *Machine) Remove() error {
	if err := errors.Join(m.Close(), os.RemoveAll(m.config.Dir)); err != nil {
		return fmt.Errorf("remove machine %s: %w", m.config.Name, err)
	}
	return nil
}
