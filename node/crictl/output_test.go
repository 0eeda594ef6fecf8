package crictl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// machine is a runtime and an image service that answer what they are told to. Anything else that is asked of them
// is a nil call, which ends the test.
type machine struct {
	internalapi.RuntimeService
	internalapi.ImageManagerService
	containers []*runtimeapi.Container
	pods       []*runtimeapi.PodSandbox
	images     []*runtimeapi.Image
	logPath    string
	filter     *runtimeapi.ContainerFilter // of the last ListContainers
	verbose    bool                        // of the last status
	pulled     string
	err        error
}

// Close is in both services, so it must be chosen.
func (m *machine) Close(context.Context) error { return nil }

func (m *machine) ListContainers(_ context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	m.filter = filter
	return m.containers, m.err
}

func (m *machine) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	return m.pods, m.err
}

func (m *machine) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return m.images, m.err
}

func (m *machine) PullImage(_ context.Context, image *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	m.pulled = image.Image
	return "sha256:0123", m.err
}

func (m *machine) ContainerStatus(_ context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	m.verbose = verbose
	return &runtimeapi.ContainerStatusResponse{
		Status: &runtimeapi.ContainerStatus{Id: id, LogPath: m.logPath, State: runtimeapi.ContainerState_CONTAINER_EXITED, ExitCode: 3},
		Info:   map[string]string{"pid": "42"},
	}, m.err
}

func (m *machine) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "containerd", RuntimeVersion: "v2.3.3", RuntimeApiVersion: "v1"}, m.err
}

func (m *machine) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return &runtimeapi.ExecResponse{Url: "http://127.0.0.1:1/" + strings.Join(r.Cmd, "+")}, m.err
}

// minutesAgo is a time whose age is shown as that many minutes, give or take a second.
func minutesAgo(n int) int64 { return time.Now().Add(-time.Duration(n) * time.Minute).UnixNano() }

func usual() *machine {
	container := func(id, name, image string, state runtimeapi.ContainerState, attempt uint32, minutes int) *runtimeapi.Container {
		return &runtimeapi.Container{
			Id: id, PodSandboxId: "fedcba9876543210", State: state, CreatedAt: minutesAgo(minutes),
			Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt},
			Image:    &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: "registry.keelson.internal/" + name + ":v1"},
			Labels:   map[string]string{"io.kubernetes.pod.name": name + "-cp-1"},
		}
	}
	return &machine{
		containers: []*runtimeapi.Container{
			container("0123456789abcdef", "etcd", "sha256:1", runtimeapi.ContainerState_CONTAINER_RUNNING, 0, 9),
			container("aaaaaaaaaaaaaaaa", "kube-apiserver", "sha256:2", runtimeapi.ContainerState_CONTAINER_EXITED, 2, 5),
		},
		pods: []*runtimeapi.PodSandbox{
			{Id: "fedcba9876543210", State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: minutesAgo(9),
				Metadata: &runtimeapi.PodSandboxMetadata{Name: "etcd-cp-1", Namespace: "kube-system"}},
			{Id: "bbbbbbbbbbbbbbbb", State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: minutesAgo(4),
				Metadata: &runtimeapi.PodSandboxMetadata{Name: "coredns-x", Namespace: "kube-system", Attempt: 1}},
		},
		images: []*runtimeapi.Image{
			{Id: "sha256:2222222222222222", RepoTags: []string{"registry.keelson.internal/pause:3.10"}, Size: 700000, Pinned: true},
			{Id: "sha256:1111111111111111", RepoTags: []string{"docker.io/app:1", "docker.io/app:2"}, RepoDigests: []string{"docker.io/app@sha256:9"}, Size: 12345678},
		},
	}
}

// call runs one command against m and returns its output.
func call(t *testing.T, m *machine, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	tool := &tool{Streams: Streams{Out: &out, Err: &errs}, runtime: m, images: m, version: "v9"}
	err := commands()[args[0]].run(t.Context(), tool, args[1:])
	// Ages move on with the clock.
	return regexp.MustCompile(`[0-9]+m[0-9]+s ago`).ReplaceAllString(out.String(), "AGE"), err
}

// TestTables is what an operator reads: the newest first, IDs cut, columns aligned.
func TestTables(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"containers", []string{"ps", "-a"}, []string{
			"CONTAINER      IMAGE                                         CREATED  STATE    NAME            ATTEMPT  POD ID         POD",
			"aaaaaaaaaaaaa  registry.keelson.internal/kube-apiserver:v1  AGE  Exited   kube-apiserver  2        fedcba9876543  kube-apiserver-cp-1",
			"0123456789abc  registry.keelson.internal/etcd:v1            AGE  Running  etcd            0        fedcba9876543  etcd-cp-1",
		}},
		{"containers by name", []string{"ps", "-a", "--name", "etc"}, []string{
			"CONTAINER      IMAGE                              CREATED  STATE    NAME  ATTEMPT  POD ID         POD",
			"0123456789abc  registry.keelson.internal/etcd:v1  AGE  Running  etcd  0        fedcba9876543  etcd-cp-1",
		}},
		{"IDs of containers", []string{"ps", "-a", "-q"}, []string{"aaaaaaaaaaaaa", "0123456789abc"}},
		{"no such name", []string{"ps", "--name", "none", "-q"}, nil},
		{"pods", []string{"pods"}, []string{
			"POD ID         CREATED  STATE     NAME       NAMESPACE    ATTEMPT",
			"bbbbbbbbbbbbb  AGE  NotReady  coredns-x  kube-system  1",
			"fedcba9876543  AGE  Ready     etcd-cp-1  kube-system  0",
		}},
		{"pods by name", []string{"pods", "-q", "--name", "coredns"}, []string{"bbbbbbbbbbbbb"}},
		{"images", []string{"images"}, []string{
			"IMAGE ID       TAGS                                                    SIZE     PINNED",
			"1111111111111  docker.io/app:1,docker.io/app:2,docker.io/app@sha256:9  12.3 MB  false",
			"2222222222222  registry.keelson.internal/pause:3.10                    0.7 MB   true",
		}},
		{"IDs of images", []string{"images", "-q"}, []string{"1111111111111", "2222222222222"}},
		{"version", []string{"version"}, []string{
			"Version:            v9", "RuntimeName:        containerd", "RuntimeVersion:     v2.3.3", "RuntimeApiVersion:  v1",
		}},
		{"pull", []string{"pull", "docker.io/app:1"}, []string{"Image is up to date for sha256:0123"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := call(t, usual(), c.args...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(out) {
				got = append(got, squeeze(line))
			}
			var want []string
			for _, line := range c.want {
				want = append(want, squeeze(line))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// squeeze makes every gap between columns two blanks wide: how wide one is depends on the ages.
func squeeze(line string) string {
	return regexp.MustCompile(` {2,}`).ReplaceAllString(strings.TrimRight(line, " \n"), "  ")
}

// TestColumnsAreAligned: every cell of a column begins below its heading.
func TestColumnsAreAligned(t *testing.T) {
	var out bytes.Buffer
	table := [][]string{{"A", "LONG HEADING", "C"}, {"a very long cell", "b", "c"}, {"x", "", "z"}}
	if err := (listing{output: "table"}).print(&out, nil, table); err != nil {
		t.Fatal(err)
	}
	want := "A                 LONG HEADING  C\na very long cell  b             c\nx                               z\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestFilters is what the runtime is asked for.
func TestFilters(t *testing.T) {
	for _, c := range []struct {
		name    string
		args    []string
		pod     string
		running bool
	}{
		{"running ones", []string{"ps"}, "", true},
		{"all", []string{"ps", "-a"}, "", false},
		{"of a pod", []string{"ps", "--pod", "fedc"}, "fedc", true},
		{"all of a pod", []string{"ps", "-a", "--pod=fedc"}, "fedc", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := usual()
			if _, err := call(t, m, c.args...); err != nil {
				t.Fatal(err)
			}
			if m.filter.PodSandboxId != c.pod || (m.filter.State != nil) != c.running {
				t.Errorf("asked for %v", m.filter)
			}
		})
	}
}

// TestJSON is for programs: whole IDs, the names of the CRI's own fields.
func TestJSON(t *testing.T) {
	for _, c := range []struct{ command, list, id string }{
		{"ps", "containers", "aaaaaaaaaaaaaaaa"},
		{"pods", "items", "bbbbbbbbbbbbbbbb"},
		{"images", "images", "sha256:1111111111111111"},
	} {
		out, err := call(t, usual(), c.command, "-o", "json")
		if err != nil {
			t.Fatal(err)
		}
		var answer map[string][]map[string]any
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatalf("%s: %v in %s", c.command, err, out)
		}
		if list := answer[c.list]; len(list) != 2 || list[0]["id"] != c.id {
			t.Errorf("%s: got %s", c.command, out)
		}
	}
	m := usual()
	out, err := call(t, m, "inspect", "abc")
	if err != nil || !m.verbose {
		t.Fatalf("inspect: %v, verbose %v", err, m.verbose)
	}
	var answer struct {
		Status struct {
			ID       string `json:"id"`
			State    string `json:"state"`
			ExitCode int    `json:"exitCode"`
		} `json:"status"`
		Info map[string]string `json:"info"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Status.ID != "abc" || answer.Status.State != "CONTAINER_EXITED" || answer.Status.ExitCode != 3 || answer.Info["pid"] != "42" {
		t.Errorf("inspect: got %s", out)
	}
}

// TestLogs reads a file in the form that the runtime writes (CRI: time, stream, tag, text).
func TestLogs(t *testing.T) {
	lines := []string{
		"2026-11-23T04:00:00.000000001Z stdout F first",
		"2026-11-23T04:00:01.000000001Z stderr F wrong",
		"2026-11-23T04:00:02.000000001Z stdout P half a ",
		"2026-11-23T04:00:02.000000002Z stdout F line",
	}
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"all", []string{"logs", "abc"}, "first\nhalf a line\n"},
		{"the last line", []string{"logs", "--tail", "1", "abc"}, "line\n"},
		{"none", []string{"logs", "--tail=0", "abc"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := usual()
			m.logPath = path
			got, err := call(t, m, c.args...)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	if _, err := call(t, usual(), "logs", "abc"); err == nil || err.Error() != "container abc has no log file" {
		t.Errorf("no file: got %v", err)
	}
}

// TestRuntimeErrors come back from every command that asks the runtime.
func TestRuntimeErrors(t *testing.T) {
	down := errors.New("the runtime is down")
	for _, args := range [][]string{
		{"ps"}, {"pods"}, {"images"}, {"pull", "x"}, {"logs", "x"}, {"inspect", "x"}, {"version"}, {"exec", "x", "true"},
	} {
		m := usual()
		m.err = down
		if out, err := call(t, m, args...); !errors.Is(err, down) || out != "" {
			t.Errorf("%v: got %q, %v", args, out, err)
		}
	}
}

// TestExecTellsWhereItCannotConnect: the runtime gives an address of its streaming server.
func TestExecTellsWhereItCannotConnect(t *testing.T) {
	if _, err := call(t, usual(), "exec", "abc", "ls", "-l"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v, want the address named", err)
	}
}

// TestUsageOfCommands: a command that is called wrongly shows its own line.
func TestUsageOfCommands(t *testing.T) {
	for name, command := range commands() {
		if !strings.HasPrefix(command.usage, name+" ") && !strings.HasPrefix(command.usage, name+":") {
			t.Errorf("%s: usage is %q", name, command.usage)
		}
		m := usual()
		if _, err := call(t, m, append([]string{name, "--no-such-flag"}, "a", "b")...); err == nil || !strings.Contains(err.Error(), "no-such-flag") {
			t.Errorf("%s: unknown flag: got %v", name, err)
		}
	}
	for _, args := range [][]string{{"pull"}, {"pull", "a", "b"}, {"logs"}, {"inspect", "a", "b"}, {"version", "a"}, {"info", "a"}, {"exec"}, {"exec", "a"}, {"ps", "a"}, {"images", "a"}} {
		if _, err := call(t, usual(), args...); err == nil || !strings.Contains(err.Error(), "usage: "+args[0]) {
			t.Errorf("%v: got %v", args, err)
		}
	}
}
