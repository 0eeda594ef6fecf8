package main

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the program under test, and the parent that leaves it a child.
func TestMain(m *testing.M) {
	switch os.Getenv("PAUSE_TEST") {
	case "pause":
		main()
		os.Exit(0)
	case "with-orphan":
		orphan()
	}
	os.Exit(m.Run())
}

// orphan becomes pause while it has a child that ends later.
func orphan() {
	child := exec.Command("/proc/self/exe", "-test.run=^$")
	child.Env = []string{"PAUSE_TEST="}
	if err := child.Start(); err != nil {
		os.Exit(3)
	}
	os.Stdout.WriteString(strconv.Itoa(child.Process.Pid) + "\n")
	if err := syscall.Exec("/proc/self/exe", []string{"pause"}, []string{"PAUSE_TEST=pause"}); err != nil {
		os.Exit(4)
	}
}

func start(t *testing.T, mode string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"PAUSE_TEST=" + mode}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

// eventually waits for a state of another process, for which the kernel has no event.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// handles says whether the process has a handler for the signal (proc(5), SigCgt).
func handles(pid int, s syscall.Signal) bool {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	_, rest, _ := strings.Cut(string(status), "SigCgt:\t")
	mask, _ := strconv.ParseUint(strings.SplitN(rest, "\n", 2)[0], 16, 64)
	return mask&(1<<(s-1)) != 0
}

func TestEndsWhenTold(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, _ := start(t, "pause")
		eventually(t, "handler", func() bool { return handles(cmd.Process.Pid, s) })
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: got %v, want a clean end", s, err)
		}
	}
}

func TestReaps(t *testing.T) {
	cmd, out := start(t, "with-orphan")
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child := "/proc/" + strings.TrimSpace(line)
	eventually(t, "the child's entry gone", func() bool { _, err := os.Stat(child); return os.IsNotExist(err) })
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("pause itself: got %v, want it alive", err)
	}
}
