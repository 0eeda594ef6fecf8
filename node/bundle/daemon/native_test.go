package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"keelson/node/crictl"
	"keelson/node/systemimage/layouttest"
)

const (
	pauseImage = "registry.keelson.internal/pause:3.10"
	appImage   = "registry.keelson.internal/app:v1"
)

// TestMain lets the test binary be containerd: started by that name, it is.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "containerd" {
		if err := Run(context.Background(), os.Args); err != nil {
			fmt.Fprintln(os.Stderr, "containerd:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runtime is a containerd of the test, with everything it writes in a directory of the test.
type runtime struct {
	dir, socket, config string
	cmd                 *exec.Cmd
	log                 string
	cri                 internalapi.RuntimeService
	images              internalapi.ImageManagerService
}

// build makes a static program, as the image builder does.
func build(t *testing.T, out, pkg string, cgo bool) {
	t.Helper()
	args := []string{"build", "-trimpath", "-o", out}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if cgo {
		args = append(args, "-tags", "osusergo,netgo", "-ldflags", "-extldflags -static")
		env = append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Env = env
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, text)
	}
}

// newRuntime prepares a machine on which everything but the kernel is ours; it skips where that cannot be.
func newRuntime(t *testing.T) *runtime {
	t.Helper()
	if testing.Short() {
		t.Skip("builds runc and the shim: not in short runs")
	}
	if os.Getuid() != 0 {
		t.Skip("running pods needs root")
	}
	if err := overlayutils.Supported(t.TempDir()); err != nil {
		t.Skipf("overlay filesystems do not work here: %v", err)
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("runc is built with a C compiler; there is none")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	build(t, filepath.Join(bin, "pause"), "keelson/node/pause", false)
	build(t, filepath.Join(bin, "containerd-shim-runc-v2"), "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", false)
	build(t, filepath.Join(bin, "runc"), "github.com/opencontainers/runc", true)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "containerd")); err != nil {
		t.Fatal(err)
	}
	r := &runtime{dir: dir, socket: filepath.Join(dir, "containerd.sock"), config: filepath.Join(dir, "config.toml"), log: filepath.Join(dir, "log")}
	t.Cleanup(func() { // last of all, after the pods are gone
		r.stop()
		// The parent group of the pods, in each hierarchy, is nobody's to remove but ours.
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/keelson-test")
		for _, group := range append(groups, "/sys/fs/cgroup/keelson-test") {
			_ = os.Remove(group)
		}
		if t.Failed() {
			text, _ := os.ReadFile(r.log)
			t.Logf("containerd's log:\n%s", text)
		}
	})
	return r
}

// layout writes the system images of one version of the operating system.
func (r *runtime) layout(t *testing.T, version string) string {
	t.Helper()
	pause, err := os.ReadFile(filepath.Join(r.dir, "bin/pause"))
	if err != nil {
		t.Fatal(err)
	}
	layers := map[string]layouttest.Layer{
		"pause":  {"bin/pause": string(pause)},
		"base":   {"etc/passwd": "root:x:0:0::/:/bin/app\n"},
		"bundle": {"bin/app": string(pause), "version": version},
	}
	return layouttest.Write(t, filepath.Join(r.dir, "root-"+version), layers,
		layouttest.Image{Name: pauseImage, Layers: []string{"pause"}, Command: []string{"/bin/pause"}},
		layouttest.Image{Name: appImage, Layers: []string{"base", "bundle"}, Command: []string{"/bin/app"}})
}

func (r *runtime) start(t *testing.T, layout string) {
	t.Helper()
	config := fmt.Sprintf(`version = 4
root = %[1]q
state = %[2]q
required_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.keelson", "io.containerd.service.v1.keelson-system-images"]
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins.'io.containerd.server.v1.grpc']
  address = %[3]q
[plugins.'io.containerd.server.v1.ttrpc']
  address = "%[3]s.ttrpc"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.snapshotter.v1.keelson']
  layout = %[4]q
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "keelson"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[5]q
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = %[6]q
`, filepath.Join(r.dir, "data"), filepath.Join(r.dir, "state"), r.socket, layout, pauseImage, filepath.Join(r.dir, "bin/runc"))
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.cmd = exec.Command(filepath.Join(r.dir, "bin/containerd"), "--config", r.config)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"))
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The clients wait for the socket and for the CRI behind it.
	endpoint := "unix://" + r.socket
	deadline := time.Now().Add(30 * time.Second)
	for {
		r.cri, err = criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(10 * time.Second).Build(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd does not answer: %v", err)
		}
	}
	r.images, err = criclient.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(10 * time.Second).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

func (r *runtime) stop() {
	if r.cmd == nil || r.cmd.ProcessState != nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait()
}

// pod starts a pod with the system's pause image, in the host's network as static pods are.
func (r *runtime) pod(t *testing.T) (string, *runtimeapi.PodSandboxConfig) {
	t.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "etcd", Uid: t.Name(), Namespace: "kube-system"},
		LogDirectory: filepath.Join(r.dir, "logs"),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/keelson-test",
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
	id, err := r.cri.RunPodSandbox(t.Context(), config, "")
	if err != nil {
		if strings.Contains(err.Error(), "cgroup") || strings.Contains(err.Error(), "operation not permitted") {
			t.Skipf("pods do not start on this machine: %v", err)
		}
		t.Fatalf("run pod: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := r.cri.StopPodSandbox(ctx, id); err != nil {
			t.Errorf("stop pod: %v", err)
		}
		if err := r.cri.RemovePodSandbox(ctx, id); err != nil {
			t.Errorf("remove pod: %v", err)
		}
	})
	return id, config
}

func (r *runtime) container(t *testing.T, pod string, config *runtimeapi.PodSandboxConfig, name string) string {
	t.Helper()
	image, err := r.images.ImageStatus(t.Context(), &runtimeapi.ImageSpec{Image: appImage}, false)
	if err != nil || image.Image == nil {
		t.Fatalf("image %s: got %v, %v, want it there without a pull", appImage, image, err)
	}
	id, err := r.cri.CreateContainer(t.Context(), pod, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image.Image.Id, UserSpecifiedImage: appImage},
		LogPath:  name + ".log",
	}, config)
	if err != nil {
		t.Fatalf("create container: %v", err)
	}
	if err := r.cri.StartContainer(t.Context(), id); err != nil {
		t.Fatalf("start container: %v", err)
	}
	return id
}

// crictl runs our crictl against the runtime.
func (r *runtime) crictl(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code := crictl.Main(t.Context(), append([]string{"-r", "unix://" + r.socket}, args...), crictl.Streams{Out: &out, Err: &errs}, "test")
	if code != 0 {
		t.Errorf("crictl %v: exit %d: %s", args, code, errs.String())
	}
	return out.String()
}

// TestPodFromSystemImages runs a pod from images that were never pulled, imported or unpacked.
func TestPodFromSystemImages(t *testing.T) {
	r := newRuntime(t)
	r.start(t, r.layout(t, "v1"))
	list, err := r.images.ListImages(t.Context(), nil)
	if err != nil || len(list) != 2 {
		t.Fatalf("images: got %v, %v, want the two of the system at once", list, err)
	}
	for _, image := range list {
		if !image.Pinned || len(image.RepoTags) != 1 {
			t.Errorf("image %v: want it pinned, with its name", image)
		}
	}
	pod, config := r.pod(t)
	id := r.container(t, pod, config, "app")
	status, err := r.cri.ContainerStatus(t.Context(), id, false)
	if err != nil || status.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("container: got %v, %v, want it running", status.GetStatus().GetState(), err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ps"}, appImage},
		{[]string{"ps", "-o", "json"}, `"containers"`},
		{[]string{"pods"}, "kube-system"},
		{[]string{"images"}, pauseImage},
		{[]string{"inspect", id[:13]}, "CONTAINER_RUNNING"},
		{[]string{"info"}, "RuntimeReady"},
		{[]string{"version"}, "containerd"},
		{[]string{"logs", id}, ""},
	} {
		if got := r.crictl(t, c.args...); !strings.Contains(got, c.want) {
			t.Errorf("crictl %v: got %s, want %q in it", c.args, got, c.want)
		}
	}
	if blobs, err := filepath.Glob(filepath.Join(r.dir, "data/io.containerd.content.v1.content/blobs/sha256/*")); err != nil || len(blobs) != 4 {
		t.Errorf("content store: got %d blobs, %v, want two manifests and two configurations", len(blobs), err)
	}

	if text, err := os.ReadFile(r.log); err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, "system images recorded") {
				t.Log(line)
			}
		}
	}

	// A restart of containerd leaves the pod running and finds everything as it was.
	r.stop()
	r.start(t, filepath.Join(r.dir, "root-v1/images"))
	status, err = r.cri.ContainerStatus(t.Context(), id, false)
	if err != nil || status.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("after a restart: got %v, %v, want the container running", status.GetStatus().GetState(), err)
	}
	r.container(t, pod, config, "second")
}

// TestNewOperatingSystem starts containerd on the data of an older system.
func TestNewOperatingSystem(t *testing.T) {
	r := newRuntime(t)
	r.start(t, r.layout(t, "v1"))
	before := r.crictl(t, "images", "-q")
	r.stop()
	r.start(t, r.layout(t, "v2"))
	after := r.crictl(t, "images", "-q")
	if before == after {
		t.Errorf("images: got %s both times, want the new app's ID", after)
	}
	if n := strings.Count(after, "\n"); n != 2 {
		t.Errorf("images: got %s, want two", after)
	}
	pod, config := r.pod(t)
	r.container(t, pod, config, "app")
}
