package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Suite is the built suite: programs and the root of images.
type Suite struct {
	dir string
}

// program is something that Go compiles for the suite.
type program struct {
	name  string
	path  string // of its package
	suite bool   // a package of tests
}

func programs() []program {
	return []program{
		{name: "e2e.test", path: "k8s.io/kubernetes/test/e2e", suite: true},
		{name: "ginkgo", path: "github.com/onsi/ginkgo/v2/ginkgo"},
		{name: "agnhost", path: "k8s.io/kubernetes/test/images/agnhost"},
		{name: "nonewprivs", path: "k8s.io/kubernetes/test/images/nonewprivs"},
		{name: "resource-consumer", path: "k8s.io/kubernetes/test/images/resource-consumer"},
		{name: "kube-sample-apiserver", path: "k8s.io/sample-apiserver"},
		{name: "coredns", path: "github.com/coredns/coredns"},
		{name: "etcd", path: "go.etcd.io/etcd/server/v3"},
		{name: "pause", path: "keelson/node/pause"},
	}
}

// Build compiles the programs into dir and unpacks the root of the images beside them. It wants to run inside the
// module, as root (of the host: debootstrap makes the images' files). What is there from the time before is kept where
// go finds nothing newer; the root is kept as it is.
func Build(ctx context.Context, dir string) (*Suite, error) {
	dir, err := filepath.Abs(dir) // ginkgo runs in a folder of its own
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("build conformance suite: %w", err)
	}
	s := &Suite{dir: dir}
	modfile, err := s.modfile(ctx)
	if err != nil {
		return nil, fmt.Errorf("build conformance suite: %w", err)
	}
	stamp, err := version(ctx)
	if err != nil {
		return nil, fmt.Errorf("build conformance suite: %w", err)
	}
	for _, p := range programs() {
		args := []string{"build"}
		if p.suite {
			args = []string{"test", "-c"}
		}
		// -mod=mod: the versions are those that our requirements lead to; some of what only the suite imports is not
		// in go.mod, and does not belong there.
		args = append(args, "-mod=mod", "-modfile="+modfile, "-trimpath", "-ldflags=-s -w"+stamp, "-o", s.path(p.name), p.path)
		if err := run(exec.CommandContext(ctx, "go", args...)); err != nil {
			return nil, fmt.Errorf("build conformance suite: %s: %w", p.name, err)
		}
	}
	if err := s.files(ctx); err != nil {
		return nil, fmt.Errorf("build conformance suite: %w", err)
	}
	if err := s.debian(ctx); err != nil {
		return nil, fmt.Errorf("build conformance suite: %w", err)
	}
	return s, nil
}

func (s *Suite) path(name string) string { return filepath.Join(s.dir, name) }

// modfile makes a go.mod for the suite out of the module's own, which stays as it is.
func (s *Suite) modfile(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find go.mod: %w", err)
	}
	module := strings.TrimSpace(string(out))
	for from, to := range map[string]string{module: "e2e.mod", strings.TrimSuffix(module, ".mod") + ".sum": "e2e.sum"} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(s.path(to), data, 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("copy %s: %w", filepath.Base(from), err)
		}
	}
	return s.path("e2e.mod"), nil
}

// served are files of agnhost's image that StatefulSets' specs probe its web server for.
func served() []string { return []string{"localhost.crt", "localhost.key"} }

// files copies them from the module.
func (s *Suite) files(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return fmt.Errorf("find k8s.io/kubernetes: %w", err)
	}
	for _, name := range served() {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "test/images/agnhost/porter", name))
		if err == nil {
			err = os.WriteFile(s.path(name), data, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return nil
}

// version tells the linker which Kubernetes it is: some specs choose by it what they hold a cluster to.
func version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return "", fmt.Errorf("find the version of k8s.io/kubernetes: %w", err)
	}
	v := strings.TrimSpace(string(out))
	parts := strings.Split(strings.TrimPrefix(v, "v"), ".")
	if len(parts) < 3 {
		return "", fmt.Errorf("the version of k8s.io/kubernetes is %q, want v1.2.3", v)
	}
	const pkg = " -X k8s.io/component-base/version."
	return pkg + "gitVersion=" + v + pkg + "gitMajor=" + parts[0] + pkg + "gitMinor=" + parts[1], nil
}

// packages is what the specs call inside their containers.
func packages() []string {
	return []string{
		"bind9-dnsutils", "bsdextrautils", "busybox-static", "ca-certificates", "curl", "iproute2", "iptables", "iputils-ping", "netcat-openbsd",
		"nginx-light", "procps", "socat", "wget",
	}
}

// debian has debootstrap make the images' root, whole or not at all.
func (s *Suite) debian(ctx context.Context) error {
	root := s.path("root")
	if _, err := os.Stat(root); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := s.path("root.new")
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "--include="+strings.Join(packages(), ","), "bookworm", fresh)
	if err := run(cmd); err != nil {
		return err
	}
	return os.Rename(fresh, root)
}

// run keeps what a command prints for the case that it fails.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
