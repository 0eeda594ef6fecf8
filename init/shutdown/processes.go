package shutdown

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one entry of /proc.
type process struct {
	pid    int
	comm   string
	kernel bool // a thread of the kernel
}

// kthreadd is the parent of all kernel threads.
const kthreadd = 2

// list reads the processes below a /proc.
func list(proc string) []process {
	dirs, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var out []process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(proc, d.Name(), "stat"))
		if err != nil {
			continue // it just ended
		}
		if p, ok := parseStat(pid, string(b)); ok {
			out = append(out, p)
		}
	}
	return out
}

// parseStat reads "PID (COMM) STATE PPID ..." (proc(5)); COMM may hold anything,
// parentheses too. A zombie is no process any more.
func parseStat(pid int, stat string) (process, bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	f := strings.Fields(stat[end+1:])
	if len(f) < 2 || f[0] == "Z" || f[0] == "X" {
		return process{}, false
	}
	return process{pid: pid, comm: stat[open+1 : end], kernel: pid == kthreadd || f[1] == strconv.Itoa(kthreadd)}, true
}

// orderly leaves containerd's shims alone: they hold the output pipes of their
// containers, and etcd would die of a broken one in place of its SIGTERM. A shim
// ends by itself, or is killed, after its container.
func orderly(p process) bool { return !strings.HasPrefix(p.comm, "containerd-shim") }

// before are the processes that go before etcd: kube-apiserver without its
// datastore waits for it instead of ending. One that is still there when etcd
// is asked is asked a second time, at which Kubernetes' programs end at once.
func before(p process) bool { return orderly(p) && p.comm != "etcd" }

func everything(process) bool { return true }

// terminate signals all processes but ours and the kernel's, and waits until
// they are gone. New ones that appear meanwhile get the signal too.
func terminate(ctx context.Context, log *slog.Logger, sig unix.Signal, chosen func(process) bool) {
	told := map[int]bool{}
	for ctx.Err() == nil {
		var fds []unix.PollFd
		for _, p := range list("/proc") {
			if p.kernel || p.pid == os.Getpid() || !chosen(p) {
				continue
			}
			fd, err := unix.PidfdOpen(p.pid, 0)
			if err != nil {
				continue
			}
			if !told[p.pid] {
				told[p.pid] = true
				unix.PidfdSendSignal(fd, sig, nil, 0)
				log.Info("shutdown", "signal", unix.SignalName(sig), "pid", p.pid, "name", p.comm)
			}
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		if len(fds) == 0 {
			return
		}
		waitAny(ctx, fds)
		for _, f := range fds {
			unix.Close(int(f.Fd))
		}
	}
}

// waitAny returns when one of the processes has ended or ctx is over.
func waitAny(ctx context.Context, fds []unix.PollFd) {
	limit := time.Minute
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d)
	}
	unix.Poll(fds, max(int(limit.Milliseconds()), 0)+1)
}
