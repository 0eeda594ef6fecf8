package qemu

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestChooseWithoutKernel(t *testing.T) {
	accel, reason, err := Probe{Binary: binary}.Choose(context.Background())
	if err != nil || accel != TCG || reason == "" {
		t.Errorf("Choose: got %q, %q, %v, want %q and a reason", accel, reason, err, TCG)
	}
}

func TestChooseForAnotherMachine(t *testing.T) {
	foreign := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	accel, reason, err := Probe{Binary: Binary(foreign), Arch: foreign, Kernel: "/nonexistent"}.Choose(context.Background())
	if err != nil || accel != TCG || !strings.Contains(reason, foreign) {
		t.Errorf("Choose for %s: got %q, %q, %v, want %q without a trial", foreign, accel, reason, err, TCG)
	}
}

func TestChooseKeepsItsAnswer(t *testing.T) {
	ctx := needQEMU(t)
	dir := t.TempDir()
	kernel, cache := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "build", "accel.json")
	// No kernel at all: whatever the host's KVM is worth, this does not boot.
	if err := os.WriteFile(kernel, []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Probe{Binary: binary, Kernel: kernel, Cache: cache, Limit: 5 * time.Second}
	accel, reason, err := p.Choose(ctx)
	if err != nil || accel != TCG {
		t.Fatalf("Choose: got %q, %v, want %q", accel, err, TCG)
	}
	kept, err := readVerdict(cache)
	if err != nil || kept.Accel != TCG || kept.Reason != reason {
		t.Fatalf("cache: got %+v, %v, want the answer", kept, err)
	}
	kept.Reason = "from the cache"
	if err := writeVerdict(cache, kept); err != nil {
		t.Fatal(err)
	}
	if _, reason, err = p.Choose(ctx); err != nil || reason != "from the cache" {
		t.Errorf("second Choose: got %q, %v, want the kept answer", reason, err)
	}
	if err := os.WriteFile(kernel, []byte("another kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, reason, err = p.Choose(ctx); err != nil || reason == "from the cache" {
		t.Errorf("Choose with another kernel: got %q, %v, want a new trial", reason, err)
	}
}

// The trial itself, with the accelerator that works everywhere: a real kernel
// passes, and something that is none does not.
func TestTry(t *testing.T) {
	ctx := needQEMU(t)
	kernels, _ := filepath.Glob("../../build/amd64/vmlinuz")
	if len(kernels) == 0 {
		t.Skip("SKIPPED: no kernel built yet (make image)")
	}
	if err := (Probe{Binary: binary, Kernel: kernels[0], Limit: time.Minute}).try(ctx, TCG); err != nil {
		t.Errorf("a Debian kernel under TCG: got %v", err)
	}
	if err := (Probe{Binary: binary, Kernel: kernels[0], Limit: time.Millisecond}).try(ctx, TCG); err == nil || !strings.HasPrefix(err.Error(), TCG) {
		t.Errorf("a kernel that is too slow: got %v, want an error", err)
	}
}
