package qemu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// TCG is the accelerator that works everywhere.
const TCG = "tcg,thread=multi"

// KVM is used only where a probe has shown that a kernel boots with it.
const KVM = "kvm"

// Probe is what ChooseAccel needs to try an accelerator.
type Probe struct {
	Binary string        // of QEMU
	Arch   string        // of the machine; this host's where empty
	Kernel string        // a Linux kernel that is to be booted; "" means TCG without a trial
	Cache  string        // file that keeps the answer; "" keeps none
	Limit  time.Duration // for one trial; 10 s where 0
}

// verdict is the cache's content. Key changes with the kernel, QEMU and the
// host's boot, so that an answer does not outlive what it was about.
type verdict struct {
	Key    string `json:"key"`
	Accel  string `json:"accel"`
	Reason string `json:"reason"`
}

// Choose answers which accelerator to use, and why. Opening /dev/kvm proves
// nothing: there are hosts on which it opens and every stock kernel hangs, so
// KVM is taken only when the kernel that is to be run got all the way to the
// end of its start with it.
func (p Probe) Choose(ctx context.Context) (accel, reason string, err error) {
	if p.Kernel == "" {
		return TCG, "no kernel to try kvm with", nil
	}
	if p.Arch != "" && p.Arch != runtime.GOARCH {
		return TCG, "this host is no " + p.Arch, nil
	}
	key, err := p.key(ctx)
	if err != nil {
		return "", "", err
	}
	if v, err := readVerdict(p.Cache); err == nil && v.Key == key {
		return v.Accel, v.Reason, nil
	}
	v := verdict{Key: key, Accel: TCG}
	switch err := p.usable(); {
	case err != nil:
		v.Reason = err.Error()
	default:
		if err := p.try(ctx, KVM); err != nil {
			v.Reason = err.Error()
		} else {
			v.Accel, v.Reason = KVM, "a kernel booted with it"
		}
	}
	if ctx.Err() != nil {
		return "", "", ctx.Err() // an interrupted trial says nothing
	}
	return v.Accel, v.Reason, writeVerdict(p.Cache, v)
}

// usable spares the trial where its outcome is known.
func (p Probe) usable() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// try boots the kernel without a root: it works if the kernel gets as far as
// to miss it and asks for a reset.
func (p Probe) try(ctx context.Context, accel string) error {
	limit := p.Limit
	if limit == 0 {
		limit = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	proc, err := Start(ctx, Config{
		Binary: p.Binary, Accel: accel, Memory: 256, Firmware: Direct, Kernel: p.Kernel,
		Cmdline: "console=ttyS0 panic=-1", NoReboot: true,
	}, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", accel, err)
	}
	defer proc.Serial().Close()
	defer proc.Kill()
	output := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(io.LimitReader(proc.Serial(), 1<<20))
		output <- data
	}()
	if err := proc.Wait(ctx); err != nil {
		return fmt.Errorf("%s: a kernel hangs with it (no end of its start within %s)", accel, limit)
	}
	if data := <-output; !bytes.Contains(data, []byte("Unable to mount root fs")) {
		return fmt.Errorf("%s: a kernel does not get to the end of its start", accel)
	}
	return nil
}

func (p Probe) key(ctx context.Context) (string, error) {
	version, err := exec.CommandContext(ctx, p.Binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w: install the package qemu-system-x86", p.Binary, err)
	}
	kernel, err := os.ReadFile(p.Kernel)
	if err != nil {
		return "", fmt.Errorf("choose accelerator: %w", err)
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // absent in some containers: then it is ""
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%x", version, strings.TrimSpace(string(boot)), sha256.Sum256(kernel)))), nil
}

func readVerdict(path string) (verdict, error) {
	var v verdict
	data, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(data, &v)
}

func writeVerdict(path string, v verdict) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("keep accelerator: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("keep accelerator: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep accelerator: %w", err)
	}
	return nil
}
