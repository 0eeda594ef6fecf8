package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"keelson/imagebuild/cpio"
	"keelson/imagebuild/tree"
	"keelson/testvm/console"
	"keelson/testvm/qemu"
)

// floor is the smallest machine that serves Kubernetes' API: package floor as
// its init, and the image's own bundle.
type floor struct {
	config  Config
	initrd  string
	log     string
	cmdline string
}

// floorLimit is how long it may take on a host that is busy.
const floorLimit = 10 * time.Minute

// newFloor makes the initramfs. It is not compressed: that the kernel would
// have to unpack it is no part of the floor.
func newFloor(ctx context.Context, c Config) (*floor, error) {
	dir := filepath.Join(c.Dir, "floor")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make floor: %w", err)
	}
	program := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "keelson/testvm/floor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make floor: build its init: %w: %s", err, out)
	}
	f := &floor{
		config: c, initrd: filepath.Join(dir, "initrd"), log: filepath.Join(dir, "console.log"),
		cmdline: "console=ttyS0,115200 quiet loglevel=4 panic=-1",
	}
	files, err := floorTree(program, filepath.Join(c.Built, "bin", "bundle"))
	if err != nil {
		return nil, fmt.Errorf("make floor: %w", err)
	}
	out, err := os.Create(f.initrd)
	if err != nil {
		return nil, fmt.Errorf("make floor: %w", err)
	}
	if err := cpio.Write(out, files); err != nil {
		out.Close()
		return nil, fmt.Errorf("make floor: %w", err)
	}
	return f, out.Close()
}

func floorTree(program, bundle string) (*tree.Tree, error) {
	t := &tree.Tree{}
	pki, err := floorPKI(time.Now())
	if err != nil {
		return nil, err
	}
	for name, content := range pki {
		if err := t.Bytes("/pki/"+name, 0o600, content); err != nil {
			return nil, err
		}
	}
	for _, err := range []error{
		t.File("/init", 0o755, program), t.File("/bundle", 0o755, bundle),
		t.Link("/etcd", "bundle"), t.Link("/kube-apiserver", "bundle"),
	} {
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// measure boots it once: from QEMU's start to /readyz 200 seen on the console.
func (f *floor) measure(ctx context.Context) (took, cpu, foreign time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, floorLimit)
	defer cancel()
	log, err := os.Create(f.log)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("measure floor: %w", err)
	}
	defer log.Close()
	busy := hostBusy()
	proc, err := qemu.Start(ctx, qemu.Config{
		Binary: "qemu-system-x86_64", Accel: f.config.Accel, CPUs: cpus, Memory: memory, Firmware: qemu.Direct, NoReboot: true,
		Kernel: filepath.Join(f.config.Built, "vmlinuz"), Initrd: f.initrd, Cmdline: f.cmdline,
	}, nil)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("measure floor: %w", err)
	}
	defer func() { proc.Kill(); <-proc.Done() }()
	con := console.New(log)
	con.Start()
	go con.Read(proc.Serial())
	line, err := con.Wait(ctx, 0, regexp.MustCompile(`floor: readyz 200`))
	if err != nil {
		return 0, 0, 0, fmt.Errorf("measure floor: %w", err)
	}
	if cpu, err = proc.CPU(); err != nil {
		return 0, 0, 0, fmt.Errorf("measure floor: %w", err)
	}
	return line.At.Sub(proc.Started), cpu, hostBusy() - busy - cpu, nil
}
