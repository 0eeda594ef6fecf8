package tunnel

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 253)
	for _, c := range []struct {
		in, host string
		port     uint16
		err      string
	}{
		{in: "127.0.0.1:10250", host: "127.0.0.1", port: 10250},
		{in: "[::1]:10250", host: "::1", port: 10250},
		{in: "[2001:db8::7]:1", host: "2001:db8::7", port: 1},
		{in: "worker-1.example:65535", host: "worker-1.example", port: 65535},
		{in: "under_score:80", host: "under_score", port: 80},
		{in: long + ":80", host: long, port: 80},
		{in: "", err: "write host:port"},
		{in: "worker", err: "write host:port"},
		{in: "::1:80", err: "write host:port"},
		{in: ":80", err: "neither a name"},
		{in: "worker:", err: "not a number from 1 to 65535"},
		{in: "worker:0", err: "not a number from 1 to 65535"},
		{in: "worker:080", err: "not a number from 1 to 65535"},
		{in: "worker:+80", err: "not a number from 1 to 65535"},
		{in: "worker:65536", err: "not a number from 1 to 65535"},
		{in: "worker:http", err: "not a number from 1 to 65535"},
		{in: "wor ker:80", err: "neither a name"},
		{in: "worker/..:80", err: "neither a name"},
		{in: "worker\r\nX: y:80", err: "write host:port"},
		{in: "-worker:80", err: "neither a name"},
		{in: ".worker:80", err: "neither a name"},
		{in: "[worker]:80", err: "neither a name"},
		{in: "[127.0.0.1]:80", err: "not an address that can be dialled"},
		{in: "[fe80::1%eth0]:80", err: "not an address that can be dialled"},
		{in: long + "a:80", err: "neither a name"},
		{in: long + "aaaaaaaaaa:80", err: "too long"},
	} {
		host, port, err := ParseAddress(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("ParseAddress(%q) = %q, %d, %v; want an error with %q", c.in, host, port, err, c.err)
			}
			continue
		}
		if err != nil || host != c.host || port != c.port {
			t.Errorf("ParseAddress(%q) = %q, %d, %v; want %q, %d", c.in, host, port, err, c.host, c.port)
		}
	}
}

func TestLoopback(t *testing.T) {
	allow := Loopback(KubeletPort, StreamPort)
	for _, c := range []struct {
		network, address string
		want             bool
	}{
		{"tcp", "127.0.0.1:10250", true},
		{"tcp", "127.0.0.1:10010", true},
		{"tcp", "[::1]:10250", true},
		{"tcp", "127.0.0.1:2379", false},
		{"tcp", "127.0.0.1:010250", false},
		{"tcp", "127.0.0.2:10250", false},
		{"tcp", "127.1:10250", false},
		{"tcp", "0.0.0.0:10250", false},
		{"tcp", "[::]:10250", false},
		{"tcp", "[::ffff:127.0.0.1]:10250", false},
		{"tcp", "[0:0:0:0:0:0:0:1]:10250", false},
		{"tcp", "localhost:10250", false},
		{"tcp", "192.0.2.1:10250", false},
		{"tcp", "10250", false},
		{"udp", "127.0.0.1:10250", false},
		{"unix", "/run/containerd/containerd.sock", false},
		{"", "127.0.0.1:10250", false},
	} {
		if got := allow(c.network, c.address); got != c.want {
			t.Errorf("Loopback(%q, %q) = %v; want %v", c.network, c.address, got, c.want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:10250", "[::1]:1", "worker:80", "[fe80::1%x]:80", "a:b:c", ":", "[]:1", "1.2.3:4"} {
		f.Add(s)
	}
	allow := Loopback(KubeletPort)
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := ParseAddress(s)
		if err != nil {
			if allow("tcp", s) {
				t.Fatalf("%q is no address, but allowed", s)
			}
			return
		}
		if got := net.JoinHostPort(host, strconv.Itoa(int(port))); got != s {
			t.Fatalf("ParseAddress(%q) = %q, %d, which is %q", s, host, port, got)
		}
		if strings.ContainsAny(host, " \t\r\n/@%") {
			t.Fatalf("ParseAddress(%q) lets host %q through", s, host)
		}
		ip, err := netip.ParseAddr(host)
		if allow("tcp", s) && (err != nil || !ip.IsLoopback() || port != KubeletPort) {
			t.Fatalf("%q is allowed", s)
		}
	})
}
