// Command workload is the one program of the image that scenarios run as pods:
// a server that says who answers, clients that ask it, and, for privileged
// pods in the host's process namespace, the means to kill a process of the
// node and to see what that left behind.
//
// It is static and has no shell beside it. Each verb does one thing, prints it
// and ends; an error ends it with status 1.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// verb is one thing that the program can do.
type verb struct {
	name, usage string
	arguments   int // how many it needs at least
	do          func(ctx context.Context, args []string) error
}

func verbs() []verb {
	return []verb{
		{"serve", "serve ADDRESS: answer HTTP requests with the pod's name", 1, serve},
		{"get", "get URL...: print the answers", 1, get},
		{"deny", "deny URL...: wait until none answers", 1, deny},
		{"lookup", "lookup NAME: print the addresses of a name", 1, lookup},
		{"echo", "echo WORD...: print the words", 0, echo},
		{"hold", "hold: stay until ended", 0, hold},
		{"pids", "pids NAME: print the processes of that program", 1, pids},
		{"kill", "kill NAME: kill a program of the node, wait until another of that name is there to stay", 1, kill},
		{"zombies", "zombies: print dead children that nobody waited for", 0, zombies},
		{"memory", "memory: print the node's memory, and PID 1's", 0, memory},
		{"on-node", "on-node PROGRAM ARGUMENT...: become a program of the node, in its files and network", 1, onNode},
		{"write", "write FILE TEXT: put a file in place, below /proc/1/root for the node's", 2, write},
		{"remove", "remove FILE...: remove files", 1, remove},
		{"cat", "cat FILE...: print files, below /proc/1/root for the node's", 1, cat},
		{"link", "link FILE...: print where symbolic links lead, as they stand", 1, link},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var usage []string
	for _, v := range verbs() {
		if len(args) > 0 && args[0] == v.name && len(args)-1 >= v.arguments {
			return v.do(ctx, args[1:])
		}
		usage = append(usage, "  "+v.usage)
	}
	return fmt.Errorf("no such verb, or too few arguments: %v; there are\n%s", args, strings.Join(usage, "\n"))
}

func echo(_ context.Context, args []string) error {
	fmt.Println(strings.Join(args, " "))
	return nil
}

func hold(ctx context.Context, _ []string) error {
	fmt.Println("holding")
	<-ctx.Done()
	return nil
}

// write leaves no moment in which the file is half there, as a careful operator's tool does.
func write(_ context.Context, args []string) error {
	temporary := args[0] + ".new"
	if err := os.WriteFile(temporary, []byte(args[1]), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, args[0])
}

// link does not follow: below /proc/1/root an absolute link would lead out of it.
func link(_ context.Context, args []string) error {
	for _, name := range args {
		to, err := os.Readlink(name)
		if err != nil {
			return err
		}
		fmt.Println(to)
	}
	return nil
}

func remove(_ context.Context, args []string) error {
	for _, name := range args {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func cat(_ context.Context, args []string) error {
	for _, name := range args {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(data); err != nil {
			return err
		}
	}
	return nil
}
