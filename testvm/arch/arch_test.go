package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list -json` says of one package, as far as the rules need it.
type pkg struct {
	ImportPath   string
	Doc          string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Doc,Dir,Imports,TestImports,XTestImports,GoFiles"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %v: %v\n%s", args, err, exit.Stderr)
		}
		t.Fatalf("go list %v: %v", args, err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("go list %v: %v", args, err)
		}
		all = append(all, p)
	}
}

// folder is the top-level folder of a package of this module, or "" for anybody else's.
func folder(importPath string) string {
	rest, ours := strings.CutPrefix(importPath, "keelson/")
	if !ours {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

// allowed is the whole rule: the packages of other folders that a folder's packages may import. A folder that is
// not named may import anything of ours but testvm.
func allowed(from, to string) bool {
	if folder(to) == "" || folder(from) == folder(to) {
		return true
	}
	switch folder(from) {
	case "node":
		return false
	case "init":
		return to == "keelson/node/config"
	case "imagebuild":
		return slices.Contains([]string{"keelson/init/layout", "keelson/init/userdata", "keelson/node/config"}, to)
	default:
		return folder(to) != "testvm"
	}
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           bool
	}{
		{"node never reaches into init", "keelson/node/server", "keelson/init/layout", false},
		{"init reads the node's configuration", "keelson/init/userdata", "keelson/node/config", true},
		{"init takes nothing else of node", "keelson/init/apply", "keelson/node/file", false},
		{"the builder knows the layout", "keelson/imagebuild/disk", "keelson/init/layout", true},
		{"the builder takes nothing else of init", "keelson/imagebuild", "keelson/init/mount", false},
		{"nobody imports testvm", "keelson/imagebuild", "keelson/testvm/qemu", false},
		{"testvm may use anything", "keelson/testvm/machine", "keelson/node/token", true},
		{"foreign modules are not ours to rule", "keelson/node/server", "k8s.io/api/core/v1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := allowed(c.from, c.to); got != c.want {
				t.Errorf("allowed(%s, %s): got %v, want %v", c.from, c.to, got, c.want)
			}
		})
	}
}

func TestImportRules(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if !allowed(p.ImportPath, to) {
				t.Errorf("%s imports %s: DESIGN's import rules forbid it", p.ImportPath, to)
			}
		}
	}
}

// PID 1 must stay small and must not stop when a library that it has no use for misbehaves.
func TestInitLinksNoKubernetes(t *testing.T) {
	forbidden := []string{"k8s.io/", "sigs.k8s.io/", "github.com/containerd/", "go.etcd.io/", "google.golang.org/grpc", "text/template", "html/template"}
	for _, p := range list(t, "-deps", "./init") {
		for _, bad := range forbidden {
			if strings.HasPrefix(p.ImportPath, bad) {
				t.Errorf("init links %s", p.ImportPath)
			}
		}
	}
}

// The configuration's package is read by PID 1 too, so it may depend on the standard library and YAML alone.
func TestNodeConfigIsALeaf(t *testing.T) {
	for _, p := range list(t, "./node/config") {
		for _, to := range p.Imports {
			if strings.Contains(to, ".") && !strings.HasPrefix(to, "go.yaml.in/yaml/") {
				t.Errorf("node/config imports %s: only the standard library and YAML are allowed", to)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range list(t, "./...") {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
