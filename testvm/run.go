package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// runConfig is what the flags of `testvm run` say.
type runConfig struct {
	image, userData, name string
	firmware              qemu.Firmware
	memory, cpus          int
	wait                  time.Duration
	ready                 bool // end once the node is Ready
}

// shutdownLimit is how long a machine may take to switch itself off.
const shutdownLimit = 90 * time.Second

func parseRun(args []string) (runConfig, error) {
	var c runConfig
	f := flag.NewFlagSet("testvm run", flag.ContinueOnError)
	f.StringVar(&c.image, "image", "build/keelson-amd64.raw", "the raw image; it is not written")
	f.StringVar(&c.userData, "userdata", "configs/user-data/server.yaml", "a #cloud-config file")
	f.StringVar(&c.name, "name", "server", "name of the machine; its files are in build/vm/<name>")
	f.IntVar(&c.memory, "memory", 4096, "memory in MiB")
	f.IntVar(&c.cpus, "cpus", 2, "number of CPUs")
	f.DurationVar(&c.wait, "wait", 15*time.Minute, "how long to wait for the node to be Ready")
	f.BoolVar(&c.ready, "once", false, "shut down as soon as the node is Ready")
	firmware := f.String("firmware", "uefi", "uefi, bios or direct")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	var err error
	if c.firmware, err = qemu.ParseFirmware(*firmware); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if c.name != filepath.Base(c.name) || c.name == "." || c.name == ".." {
		return c, fmt.Errorf("name %q: want a name, not a path", c.name)
	}
	return c, nil
}

// runCommand boots a machine and stays with it until Ctrl-C.
func runCommand(ctx context.Context, args []string) error {
	c, err := parseRun(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	userData, err := os.ReadFile(c.userData)
	if err != nil {
		return fmt.Errorf("read user-data: %w", err)
	}
	arch := archOf(c.image)
	boot := filepath.Join(filepath.Dir(c.image), arch)
	accel, reason, err := chooseAccel(ctx, arch, boot)
	if err != nil {
		return err
	}
	fmt.Printf("accelerator %s (%s)\n", accel, reason)
	var screen *progress
	m, err := machine.New(ctx, machine.Config{
		Dir: filepath.Join("build", "vm", c.name), Image: c.image, Boot: boot, Accel: accel, Arch: arch, Firmware: c.firmware,
		Memory: c.memory, CPUs: c.cpus, Seed: cidata.Volume{UserData: userData}, Reboots: true,
		Follow: func(l console.Line) { screen.line(l) },
	})
	if err != nil {
		return err
	}
	defer m.Close()
	screen = &progress{out: os.Stdout, began: time.Now()}
	fmt.Printf("booting %s by %s; all of its console: %s\n", c.image, c.firmware, m.ConsolePath())
	if err := m.Start(ctx); err != nil {
		return err
	}
	if err := awaitReady(ctx, m, c.wait, os.Stdout); err != nil {
		if ctx.Err() != nil {
			return shutdown(m)
		}
		report := filepath.Join("build", "vm", "reports", "run-"+c.name)
		fmt.Fprintln(os.Stderr, "testvm: what is known of this is kept in", report)
		return errors.Join(err, m.Report(ctx, report, err.Error(), false))
	}
	if c.ready {
		return shutdown(m)
	}
	fmt.Printf("\nkubectl --kubeconfig %s get nodes\nCtrl-C shuts the machine down\n", m.KubeconfigPath())
	if _, err := m.Ended(ctx); ctx.Err() == nil {
		return errors.Join(errors.New("the machine ended by itself"), err)
	}
	return shutdown(m)
}

// awaitReady follows the machine until its node is Ready, and prints it.
func awaitReady(ctx context.Context, m *machine.Machine, limit time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client, err := m.Client(ctx)
	if err != nil {
		return err
	}
	node, err := client.NodeReady(ctx)
	if err != nil {
		return fmt.Errorf("%w; the console's last lines:\n%s", err, m.Console().Tail(30))
	}
	fmt.Fprintf(out, "\nnode Ready %.1f s after the machine was switched on\n\n", time.Since(m.Started()).Seconds())
	return kube.PrintNode(out, node, time.Now())
}

// shutdown presses the power button; the caller's Close takes the power away
// if that does not help in time. The context of the run has ended already.
func shutdown(m *machine.Machine) error {
	fmt.Println("\nshutting down")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	return m.Shutdown(ctx)
}

// archOf an image is what its name says.
func archOf(image string) string {
	if strings.HasSuffix(strings.TrimSuffix(image, ".raw"), "-arm64") {
		return "arm64"
	}
	return "amd64"
}

// chooseAccel tries the kernel that was built with the image.
func chooseAccel(ctx context.Context, arch, boot string) (accel, reason string, err error) {
	p := qemu.Probe{Binary: qemu.Binary(arch), Arch: arch, Cache: filepath.Join("build", "vm", "accel.json")}
	if kernel := filepath.Join(boot, "vmlinuz"); exists(kernel) {
		p.Kernel = kernel
	}
	return p.Choose(ctx)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// progress shows the lines of a console that a person waits for.
type progress struct {
	out   io.Writer
	began time.Time
}

func (p *progress) line(l console.Line) {
	s, ok := console.ParseStep(l.Text)
	if !ok && !console.DeadEnd().MatchString(l.Text) {
		return
	}
	text := s.Name
	switch s.Kind {
	case console.Passed:
		text = fmt.Sprintf("%-40s %6d ms", s.Name, s.Took.Milliseconds())
	case console.Broken:
		text = fmt.Sprintf("%s: FAILED: %s", s.Name, s.Error)
	case console.Complete:
		text = fmt.Sprintf("PID 1 is done, %.3f s after the kernel's start", s.Since.Seconds())
	case console.Milestone:
		text = "node: " + s.Name
	case console.Mistake:
		text = "user-data: " + s.Error
	case console.Halted:
		text = "halted: " + s.Error
	}
	if !ok {
		text = l.Text
	}
	fmt.Fprintf(p.out, "[%7.2f s] %s\n", l.At.Sub(p.began).Seconds(), text)
}
