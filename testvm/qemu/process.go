package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running QEMU.
type Process struct {
	Started time.Time // just before the program was started
	Command []string  // program and arguments, for a report

	serial net.Conn
	qmp    *QMP
	cmd    *exec.Cmd
	stderr *os.File
	done   chan struct{}
	err    error // read after done
}

// Start runs QEMU. The context bounds only the start: a machine lives until
// its guest ends it, or Quit or Kill does. Should this process die, the kernel
// kills QEMU.
func Start(ctx context.Context, c Config, stderr *os.File) (*Process, error) {
	args, err := c.Args()
	if err != nil {
		return nil, err
	}
	serial, theirSerial, err := pair("serial")
	if err != nil {
		return nil, err
	}
	monitor, theirMonitor, err := pair("qmp")
	if err != nil {
		serial.Close()
		theirSerial.Close()
		return nil, err
	}

	cmd := exec.Command(c.Binary, args...)
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{theirSerial, theirMonitor}
	// Its own process group: Ctrl-C is for us, the guest gets its power button.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{
		Started: time.Now(), Command: append([]string{c.Binary}, args...),
		serial: serial, cmd: cmd, stderr: stderr, done: make(chan struct{}),
	}
	err = cmd.Start()
	// QEMU's ends must be QEMU's alone, or ours would not end with it.
	theirSerial.Close()
	theirMonitor.Close()
	if err != nil {
		serial.Close()
		monitor.Close()
		return nil, fmt.Errorf("start %s: %w", c.Binary, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	if p.qmp, err = dial(ctx, monitor, p.done); err != nil {
		p.Kill()
		<-p.done
		serial.Close()
		return nil, fmt.Errorf("start %s: %w%s", c.Binary, err, p.complaint())
	}
	return p, nil
}

// pair makes a connected pair of Unix sockets: ours as a connection, QEMU's as
// a file to inherit.
func pair(name string) (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	return conn, theirs, nil
}

// Serial is the guest's first serial port. It ends with QEMU.
func (p *Process) Serial() net.Conn { return p.serial }

// QMP is the monitor.
func (p *Process) QMP() *QMP { return p.qmp }

// PID of QEMU.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CPU is the processor time that QEMU has used so far: unlike the time on the
// wall, it hardly depends on what else the host does.
func (p *Process) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("processor time of qemu: %w", err)
	}
	// man 5 proc: fields 14 and 15, in units of 10 ms; the name before them may
	// hold anything, so counting begins behind its parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("processor time of qemu: stat %q is too short", stat)
	}
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("processor time of qemu: %w", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond, nil
}

// Done is closed when QEMU has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill is the power cut: QEMU ends at once, and with it go the writes that the
// guest did not flush and that QEMU still had in its tables of the overlay.
func (p *Process) Kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // an error means that it is gone already
}

// Wait blocks until QEMU has ended and says what it complained of.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for qemu: %w", ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil // our own doing
	}
	if p.err != nil {
		return fmt.Errorf("qemu: %w%s", p.err, p.complaint())
	}
	return nil
}

// complaint is what QEMU wrote to its standard error.
func (p *Process) complaint() string {
	if p.stderr == nil {
		return ""
	}
	data, err := os.ReadFile(p.stderr.Name())
	if err != nil || len(data) == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(data[max(0, len(data)-2000):]))
}

// FreePorts finds n TCP ports of the loopback that nobody listens on now.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// FindFirmware is FindOVMF for an architecture. On arm64 Debian's package is
// qemu-efi-aarch64.
func FindFirmware(arch string, secure bool) (code, vars string, err error) {
	if arch != "arm64" {
		return FindOVMF(secure)
	}
	code, vars = "/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"
	for _, f := range []string{code, vars} {
		if _, err := os.Stat(f); err != nil {
			return "", "", fmt.Errorf("find UEFI firmware: %w: install the package qemu-efi-aarch64", err)
		}
	}
	return code, vars, nil
}

// FindOVMF looks where Debian's package ovmf puts the firmware; with secure,
// the one that can do Secure Boot. Its variables hold no keys: it is in setup
// mode.
func FindOVMF(secure bool) (code, vars string, err error) {
	const dir = "/usr/share/OVMF"
	code, vars = filepath.Join(dir, "OVMF_CODE_4M.fd"), filepath.Join(dir, "OVMF_VARS_4M.fd")
	if secure {
		code = filepath.Join(dir, "OVMF_CODE_4M.secboot.fd")
	}
	for _, f := range []string{code, vars} {
		if _, err := os.Stat(f); err != nil {
			return "", "", fmt.Errorf("find UEFI firmware: %w: install the package ovmf", err)
		}
	}
	return code, vars, nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
