package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/lan"
)

// needRoot skips, and says so, where machines cannot be made.
func needRoot(t *testing.T) {
	t.Helper()
	if err := Check(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	if err := allowed(); err != nil {
		t.Skip("SKIPPED:", err)
	}
}

// allowed tells once why this host forbids machines, if it does.
var allowed = sync.OnceValue(func() error {
	dir, err := programs()
	if err != nil {
		return nil // for the tests to fail with
	}
	root, err := OpenRoot(filepath.Join(dir, "root"))
	if err != nil {
		return nil
	}
	defer root.Close()
	return Try(filepath.Join(dir, "allowed"), filepath.Join(dir, "nsinit"), root)
})

// programs are PID 1 and the root of the machines of this package's tests.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "netns-test-")
	if err != nil {
		return "", err
	}
	if _, err := Build(context.Background(), dir); err != nil {
		return dir, err
	}
	root := filepath.Join(dir, "root")
	for _, at := range []string{"dev", "proc", "sys", "run", "tmp", "var", "etc", "usr/bin", "usr/share/factory/etc", "usr/share/zoneinfo/Etc", "usr/lib/sysctl.d"} {
		if err := os.MkdirAll(filepath.Join(root, at), 0o755); err != nil {
			return dir, err
		}
	}
	for name, text := range map[string]string{
		"usr/share/factory/etc/issue":  "factory\n",
		"usr/share/zoneinfo/Etc/UTC":   "",
		"usr/lib/sysctl.d/50-any.conf": "net.ipv4.ip_forward = 1\nkernel.panic = 77\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return dir, err
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(root, "usr/bin/node"), "./testdata/node")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil && dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// fixture is a LAN and machines whose node is testdata/node.
type fixture struct {
	t    *testing.T
	dir  string
	lan  *LAN
	root *Root
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	needRoot(t)
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, dir: dir}
	if f.lan, err = NewLAN(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.lan.Close() })
	if f.root, err = OpenRoot(filepath.Join(dir, "root")); err != nil {
		t.Fatal(err)
	}
	return f
}

// start makes a machine and switches it on.
func (f *fixture) start(name string, n int, userData string) *Machine {
	f.t.Helper()
	m, err := New(Config{
		Name: name, N: n, Dir: filepath.Join(f.t.TempDir(), name), Init: filepath.Join(f.dir, "nsinit"), Root: f.root, LAN: f.lan,
		Seed: cidata.Volume{UserData: []byte("#cloud-config\n" + userData)},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := m.Remove(); err != nil {
			f.t.Error(err)
		}
	})
	if err := m.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return m
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// expect waits for a line of the fake node.
func expect(t *testing.T, m *Machine, pattern string) string {
	t.Helper()
	line, err := m.Expect(within(t), pattern)
	if err != nil {
		t.Fatal(err)
	}
	return line.Text
}

// ask sends a command to the fake node and returns its answer, or "" where there is none within a moment.
func ask(t *testing.T, dial func(context.Context, string) (net.Conn, error), address, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := dial(ctx, address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(conn, command)
	answer, err := io.ReadAll(conn)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(answer))
}

// local asks a machine from within.
func local(t *testing.T, m *Machine, command string) string {
	t.Helper()
	return ask(t, m.Dial, "127.0.0.1:9345", command)
}

func TestMachineIsAMachine(t *testing.T) {
	f := newFixture(t)
	before, err := os.ReadFile("/proc/sys/vm/overcommit_memory")
	if err != nil {
		t.Fatal(err)
	}
	m := f.start("alpha", 1, "hostname: alpha-1\nrke2: {role: agent, token: abc, server: \"https://10.78.0.2:9345\"}\nwrite_files: [{path: /etc/x, content: y}]\n")
	expect(t, m, "keelson: node: listening as alpha-1, agent")
	for command, want := range map[string]string{
		"pid":                               "its parent is 1",
		"cat /etc/x":                        "y",
		"cat /etc/issue":                    "factory",
		"cat /etc/hostname":                 "alpha-1",
		"cat /etc/resolv.conf":              "nameserver 10.78.0.254",
		"cat /proc/sys/net/ipv4/ip_forward": "1",
		"cat /proc/self/cgroup":             "/",
		"write /proc/sys/kernel/pid_max":    "read-only file system",
		"write /usr/x":                      "read-only file system",
		"write /sys/kernel/uevent_seqnum":   "read-only file system",
		"write /dev/null":                   "written",
		"write /proc/sys/kernel/panic":      "written",
		"write /var/kept":                   "written",
		"cat /proc/self/mountinfo":          "/sys/fs/cgroup",
		"names /":                           "dev etc proc run sys tmp usr var",
		"cat /etc/rancher/rke2/config.yaml.d/00-user-data.yaml": "token: abc",
		"addresses": "10.78.0.1/24",
	} {
		if got := local(t, m, command); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", command, got, want)
		}
	}
	if got := local(t, m, "cat /proc/self/cgroup"); strings.Contains(got, cgroupRoot) {
		t.Errorf("the machine sees the host's cgroups: %s", got)
	}
	if got := local(t, m, "cat /proc/self/mountinfo"); strings.Contains(got, f.dir+" ") {
		t.Errorf("the machine sees the host's mounts: %s", got)
	}
	// The host as it was: kernel settings, host name, mounts.
	if got := local(t, m, "write /proc/sys/vm/overcommit_memory"); got != "written" {
		t.Errorf("write the machine's own vm.overcommit_memory: %s", got)
	}
	if after, err := os.ReadFile("/proc/sys/vm/overcommit_memory"); err != nil || string(after) != string(before) {
		t.Errorf("the host's vm.overcommit_memory: got %q, %v, want %q", after, err, before)
	}
	if name, err := os.Hostname(); err != nil || name == "alpha-1" {
		t.Errorf("the host is called %q, %v", name, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), m.path("root")) {
		t.Errorf("the host sees the machine's mounts (%v)", err)
	}
}

func TestPowerCutEndsAllAtOnce(t *testing.T) {
	f := newFixture(t)
	m := f.start("beta", 2, "hostname: beta\n")
	expect(t, m, "listening as beta, server")
	if got := local(t, m, "orphan"); got != "started" {
		t.Fatalf("orphan: %q", got)
	}
	if got := local(t, m, "write /var/kept"); got != "written" {
		t.Fatalf("write: %q", got)
	}
	if got := local(t, m, "write /run/lost"); got != "written" {
		t.Fatalf("write: %q", got)
	}
	procs := filepath.Join(m.cgroups.all[0].mount, m.cgroups.name, "cgroup.procs")
	if list, err := os.ReadFile(procs); err != nil || len(strings.Fields(string(list))) < 3 {
		t.Errorf("processes: got %q, %v, want PID 1, node and the orphan", list, err)
	}
	if err := m.PowerCut(within(t)); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadFile(procs); err != nil || len(list) > 0 {
		t.Errorf("after the cut: got processes %q, %v, want none", list, err)
	}
	if got := local(t, m, "pid"); got != "" {
		t.Errorf("a machine that is off answers %q", got)
	}
	if err := m.PowerCut(within(t)); err == nil {
		t.Error("power cut of a machine that is off: got no error")
	}
	if err := m.Shutdown(within(t)); err == nil {
		t.Error("shutdown of a machine that is off: got no error")
	}
	if _, err := m.Client(within(t)); err == nil {
		t.Error("client of a machine that is off: got no error")
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, m, "listening as beta, server")
	if got := local(t, m, "cat /var/kept"); got != "x" {
		t.Errorf("the disk after a power cut: got %q, want x", got)
	}
	if got := local(t, m, "cat /run/lost"); !strings.Contains(got, "no such file") {
		t.Errorf("/run after a power cut: got %q", got)
	}
	if err := m.Start(t.Context()); err == nil {
		t.Error("start of a machine that runs: got no error")
	}
}

func TestShutdownAndCrash(t *testing.T) {
	f := newFixture(t)
	m := f.start("gamma", 3, "hostname: gamma\n")
	expect(t, m, "listening as gamma, server")
	local(t, m, "die")
	expect(t, m, "keelson: service node: exit status 3: starting again")
	again := m.Console().Mark()
	if _, err := m.Console().Wait(within(t), again, regexp.MustCompile("listening as gamma, server")); err != nil {
		t.Fatal(err)
	}
	if err := m.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(m.path("state"), "ended")); err != nil || string(text) != "asked to" {
		t.Errorf("node at the shutdown: got %q, %v, want that it was asked to end", text, err)
	}
}

func TestRefusedUserData(t *testing.T) {
	f := newFixture(t)
	m := f.start("delta", 4, "rke2: {role: king}\n")
	_, err := m.Expect(within(t), "node: listening")
	if err == nil || !strings.Contains(err.Error(), "king") {
		t.Errorf("got %v, want the console's words about the role", err)
	}
	if err := m.PowerCut(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := m.Reseed(cidata.Volume{UserData: []byte("#cloud-config\nhostname: delta\n")}); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, m, "listening as delta, server")
}

func TestReport(t *testing.T) {
	f := newFixture(t)
	m := f.start("epsilon", 5, "hostname: epsilon\n")
	expect(t, m, "listening as epsilon, server")
	dir := filepath.Join(t.TempDir(), "report")
	if err := m.Report(within(t), dir, "because", true); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"failure.txt": "because", "console.log": "listening as epsilon", "user-data": "hostname: epsilon",
		"vendor-data": "token", "guest/log/keelson/node.log": "listening as", "state/lib/keelson/machine-id": "",
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: got %q, %v, want %q in it", name, data, err, want)
		}
	}
	if m.alive() {
		t.Error("the machine runs after its report")
	}
}

func TestLANCarriesAndFails(t *testing.T) {
	f := newFixture(t)
	one, two := f.start("one", 1, "hostname: one\n"), f.start("two", 2, "hostname: two\n")
	expect(t, one, "listening as one")
	expect(t, two, "listening as two")
	at := Address(2).String() + ":9345"
	// sees tells which of one and the test reach two.
	sees := func(wantOne, wantTest bool) {
		t.Helper()
		if got := ask(t, one.Dial, at, "name") == "two"; got != wantOne {
			t.Errorf("one reaches two: got %v, want %v", got, wantOne)
		}
		if got := ask(t, f.lan.Dial, at, "name") == "two"; got != wantTest {
			t.Errorf("the test reaches two: got %v, want %v", got, wantTest)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sees(true, true)
	must(f.lan.Set("two", lan.Fault{Cut: true}))
	sees(false, false)
	if got := local(t, two, "name"); got != "two" {
		t.Errorf("a machine that is cut off, from within: got %q", got)
	}
	must(f.lan.Set("two", lan.Fault{}))
	sees(true, true)
	must(f.lan.Split([]string{"two"}))
	sees(false, false)
	must(f.lan.Split([]string{"one", "two"}))
	sees(true, false)
	// A cable keeps its place over a power cut.
	must(two.PowerCut(within(t)))
	must(f.lan.Split([]string{"one"}))
	must(two.Start(t.Context()))
	expect(t, two, "listening as two")
	sees(false, true)
	must(f.lan.Split())
	sees(true, true)
	if err := f.lan.Set("nobody", lan.Fault{}); err == nil {
		t.Error("fault of a port that is not there: got no error")
	}
	if err := f.lan.Split([]string{"nobody"}); err == nil {
		t.Error("split with a port that is not there: got no error")
	}
	if err := f.lan.Set("two", lan.Fault{Loss: 1}); err != nil {
		if !strings.Contains(err.Error(), "sch_netem") {
			t.Errorf("loss: %v", err)
		}
		t.Log("not tested: ", err)
		return
	}
	sees(false, false)
}

// What the test's process offers on loopback is there for machines, and the ways in lead into them.
func TestSharedPortsAndDoors(t *testing.T) {
	f := newFixture(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "from the host")
			conn.Close()
		}
	}()
	port := listener.Addr().(*net.TCPAddr).Port
	stop, err := f.lan.Share(port)
	if err != nil {
		t.Fatal(err)
	}
	m := f.start("zeta", 6, "hostname: zeta\n")
	expect(t, m, "listening as zeta")
	if got := ask(t, m.Dial, fmt.Sprintf("%s:%d", Gateway(), port), ""); got != "from the host" {
		t.Errorf("from the machine to the host: got %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, m.Dial, fmt.Sprintf("%s:%d", Gateway(), port), ""); got != "" {
		t.Errorf("after the end of sharing: got %q", got)
	}
	host := func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	door := fmt.Sprintf("127.0.0.1:%d", m.ports[1])
	if got := ask(t, host, door, "name"); got != "zeta" {
		t.Errorf("from the host into the machine: got %q", got)
	}
	if err := m.PowerCut(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, host, door, "name"); got != "" {
		t.Errorf("into a machine that is off: got %q", got)
	}
	if _, err := f.lan.Dial(within(t), "localhost:1"); err == nil {
		t.Error("dial of a name: got no error")
	}
}
