// Command floor is the init of the smallest machine that serves Kubernetes'
// API: it starts etcd and kube-apiserver at once and says when /readyz answers
// 200. A node's start is measured against it (package bench).
//
// It has no disk, no network but loopback, no runtime and no kubelet. Programs,
// certificates and keys are in its initramfs, which package bench makes;
// everything that is written goes to the memory that the initramfs is in. It
// switches the machine off where something fails, and waits to be ended otherwise.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("floor: failed:", err)
	} else {
		select {} // whoever measures ends the machine
	}
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// pki is where the initramfs has keys and certificates.
const pki = "/pki/"

func run() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("floor is the init of a machine and does nothing else")
	}
	for _, m := range []struct{ source, dir, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"tmpfs", "/tmp", "tmpfs"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.source, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := loopback(); err != nil {
		return err
	}
	ended := make(chan error, 2)
	for _, p := range [][]string{etcd(), apiserver()} {
		if err := start(p, ended); err != nil {
			return err
		}
	}
	return ready(ended)
}

// loopback brings lo up: ifreq of SIOCSIFFLAGS (man 7 netdevice).
func loopback() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer syscall.Close(fd)
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("loopback: %w", errno)
	}
	return nil
}

func start(command []string, ended chan<- error) error {
	log, err := os.Create("/tmp/" + command[0] + ".log")
	if err != nil {
		return err
	}
	cmd := exec.Command("/"+command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=/", "HOME=/tmp"}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", command[0], err)
	}
	go func() {
		err := cmd.Wait()
		tail, _ := os.ReadFile(log.Name())
		ended <- fmt.Errorf("%s ended: %w: %s", command[0], err, tail[max(0, len(tail)-1500):])
	}()
	return nil
}

// The arguments are those of the real static pods as far as they decide how
// much there is to be done; TLS on both.
func etcd() []string {
	return []string{
		"etcd", "--name=floor", "--data-dir=/tmp/etcd",
		"--listen-client-urls=https://127.0.0.1:2379", "--advertise-client-urls=https://127.0.0.1:2379",
		"--listen-peer-urls=https://127.0.0.1:2380", "--initial-advertise-peer-urls=https://127.0.0.1:2380",
		"--initial-cluster=floor=https://127.0.0.1:2380",
		"--cert-file=" + pki + "server.crt", "--key-file=" + pki + "server.key", "--client-cert-auth", "--trusted-ca-file=" + pki + "ca.crt",
		"--peer-cert-file=" + pki + "server.crt", "--peer-key-file=" + pki + "server.key", "--peer-client-cert-auth", "--peer-trusted-ca-file=" + pki + "ca.crt",
	}
}

func apiserver() []string {
	return []string{
		// The advertised address is nobody's; a loopback one would be refused.
		"kube-apiserver", "--bind-address=127.0.0.1", "--advertise-address=192.0.2.1", "--secure-port=6443",
		"--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=" + pki + "ca.crt",
		"--etcd-certfile=" + pki + "client.crt", "--etcd-keyfile=" + pki + "client.key",
		"--tls-cert-file=" + pki + "server.crt", "--tls-private-key-file=" + pki + "server.key",
		"--client-ca-file=" + pki + "ca.crt", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki + "service.key", "--service-account-signing-key-file=" + pki + "service.key",
		"--service-cluster-ip-range=10.43.0.0/16", "--allow-privileged=true", "--profiling=false", "--cert-dir=/tmp",
	}
}

// ready asks /readyz until it answers 200. There is no event for it outside of
// the apiserver; the interval is the measurement's error.
func ready(ended <-chan error) error {
	ca, err := os.ReadFile(pki + "ca.crt")
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(pki+"client.crt", pki+"client.key")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}},
	}
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		resp, err := client.Get("https://127.0.0.1:6443/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				tick.Stop()
				fmt.Println("floor: readyz 200")
				return nil
			}
		}
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
	}
}
