package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// procRoot is where the processes are; with hostPID it shows the node's.
const procRoot = "/proc"

// process is what /proc/<pid>/stat and cmdline say (man 5 proc).
type process struct {
	pid, parent int
	comm        string
	state       byte
	program     string // base name of the first argument; "" for kernel threads and zombies
}

// processes lists those under root. One that ends meanwhile is left out.
func processes(root string) ([]process, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(root, e.Name(), "stat"))
		if err != nil {
			continue
		}
		p, err := parseStat(stat)
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		cmdline, _ := os.ReadFile(filepath.Join(root, e.Name(), "cmdline")) // gone, or a zombie: none
		if first, _, _ := bytes.Cut(cmdline, []byte{0}); len(first) > 0 {
			p.program = filepath.Base(string(first))
		}
		all = append(all, p)
	}
	return all, nil
}

// parseStat reads "<pid> (<comm>) <state> <parent> ...". The name may hold
// spaces and parentheses, so the last one closes it.
func parseStat(stat []byte) (process, error) {
	open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || shut < open {
		return process{}, fmt.Errorf("stat %q has no name in parentheses", stat)
	}
	rest := strings.Fields(string(stat[shut+1:]))
	pid, err := strconv.Atoi(strings.TrimSpace(string(stat[:open])))
	if err != nil || len(rest) < 2 || len(rest[0]) != 1 {
		return process{}, fmt.Errorf("stat %q has no pid, state and parent", stat)
	}
	parent, err := strconv.Atoi(rest[1])
	if err != nil {
		return process{}, fmt.Errorf("stat %q: parent: %w", stat, err)
	}
	return process{pid: pid, parent: parent, comm: string(stat[open+1 : shut]), state: rest[0][0]}, nil
}

// named finds the living processes of a program.
func named(root, name string) ([]int, error) {
	all, err := processes(root)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, p := range all {
		if p.program == name && p.state != 'Z' {
			found = append(found, p.pid)
		}
	}
	return found, nil
}

func pids(_ context.Context, args []string) error {
	found, err := named(procRoot, args[0])
	if err != nil {
		return err
	}
	fmt.Println(strings.Trim(fmt.Sprint(found), "[]"))
	return nil
}

// look again for a successor this often; /proc has no events for a newcomer.
const glance = 50 * time.Millisecond

// stays is how long a successor must have lived to count. It is also the time
// that a new containerd has to find this pod again: one that ends before that
// is not known to have ended well.
const stays = 30 * time.Second

// kill ends the program with SIGKILL and stays until all of its processes are
// gone and others of the same name have come to stay.
func kill(ctx context.Context, args []string) error {
	return killed(ctx, args[0], stays)
}

func killed(ctx context.Context, name string, stays time.Duration) error {
	victims, err := named(procRoot, name)
	if err != nil {
		return err
	}
	if len(victims) == 0 {
		return fmt.Errorf("kill %s: no such process", name)
	}
	began := time.Now()
	for _, pid := range victims {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s (%d): %w", name, pid, err)
		}
	}
	fmt.Printf("killed %s %v\n", name, victims)
	tick := time.NewTicker(glance)
	defer tick.Stop()
	successors, since := []int(nil), began
	for {
		now, err := named(procRoot, name)
		if err != nil {
			return err
		}
		if !slices.Equal(now, successors) {
			successors, since = now, time.Now()
		}
		if len(now) > 0 && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(victims, pid) }) && time.Since(since) >= stays {
			fmt.Printf("%s is back as %v after %.1f s\n", name, now, since.Sub(began).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill %s: it did not come back: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// zombies prints every dead process that was there twice, two seconds apart:
// between a death and its parent's wait there is always a moment.
func zombies(ctx context.Context, _ []string) error {
	before, err := dead(procRoot)
	if err != nil {
		return err
	}
	if len(before) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
	after, err := dead(procRoot)
	if err != nil {
		return err
	}
	n := 0
	for pid, p := range after {
		if _, was := before[pid]; was {
			fmt.Printf("zombie %d (%s), child of %d\n", pid, p.comm, p.parent)
			n++
		}
	}
	fmt.Printf("%d zombies\n", n)
	return nil
}

func dead(root string) (map[int]process, error) {
	all, err := processes(root)
	if err != nil {
		return nil, err
	}
	found := map[int]process{}
	for _, p := range all {
		if p.state == 'Z' {
			found[p.pid] = p
		}
	}
	return found, nil
}

// memory prints lines of /proc/meminfo and PID 1's resident size, all in kB.
func memory(_ context.Context, _ []string) error {
	for _, f := range []struct {
		file string
		keys []string
		as   string
	}{
		{"meminfo", []string{"MemTotal", "MemAvailable"}, ""},
		{"1/status", []string{"VmRSS", "RssAnon"}, "PID1"},
	} {
		data, err := os.ReadFile(filepath.Join(procRoot, f.file))
		if err != nil {
			return err
		}
		for _, key := range f.keys {
			kb, err := field(string(data), key)
			if err != nil {
				return fmt.Errorf("%s: %w", f.file, err)
			}
			fmt.Printf("%s%s %d\n", f.as, key, kb)
		}
	}
	return nil
}

// field reads "<key>:   <n> kB".
func field(text, key string) (int, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
		}
	}
	return 0, fmt.Errorf("no line %q", key)
}
