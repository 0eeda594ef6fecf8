// Command node stands for the real one in the tests of package netns: it does on its supervisor's port what it is told.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sleep" {
		time.Sleep(time.Hour)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	name, _ := os.Hostname()
	listener, err := net.Listen("tcp", ":9345")
	if err != nil {
		fmt.Println("keelson: node:", err)
		os.Exit(1)
	}
	fmt.Printf("keelson: node: listening as %s, %s\nnot for the console\n", name, os.Args[1])
	context.AfterFunc(ctx, func() {
		if os.WriteFile("/var/ended", []byte("asked to"), 0o644) == nil {
			os.Exit(0)
		}
		os.Exit(1)
	})
	for {
		conn, err := listener.Accept()
		if err != nil {
			continue
		}
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprintln(conn, obey(strings.TrimSpace(line)))
		conn.Close()
	}
}

func obey(line string) string {
	verb, path, _ := strings.Cut(line, " ")
	switch verb {
	case "name":
		name, _ := os.Hostname()
		return name
	case "pid":
		return fmt.Sprintf("its parent is %d", os.Getppid())
	case "die":
		os.Exit(3)
	case "cat":
		data, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		return string(data)
	case "names":
		entries, err := os.ReadDir(path)
		if err != nil {
			return err.Error()
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	case "write":
		text := "x"
		if strings.HasPrefix(path, "/proc/sys") {
			text = "1"
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			var cause *fs.PathError
			if errors.As(err, &cause) {
				return cause.Err.Error()
			}
			return err.Error()
		}
		return "written"
	case "addresses":
		all, err := net.InterfaceAddrs()
		return fmt.Sprint(all, err)
	case "orphan":
		cmd := exec.Command("/proc/self/exe", "sleep")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err.Error()
		}
		return "started"
	}
	return "no such verb: " + verb
}
