package conformance

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"keelson/testvm/registry"
)

// report is what ginkgo writes, as far as it matters: suite nodes, two processes' specs, one that was left out.
const report = `[{"SuiteSucceeded": false, "SpecReports": [
 {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed", "RunTime": 5},
 {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "should serve [Conformance]", "State": "passed", "RunTime": 2000000000},
 {"ContainerHierarchyTexts": ["[sig-network] DNS", "pods"], "LeafNodeType": "It", "LeafNodeText": "should resolve [Conformance]", "State": "failed", "RunTime": 1, "Failure": {"Message": "Timed out"}},
 {"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "is not asked for", "State": "skipped"},
 {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedAfterSuite", "LeafNodeText": "", "State": "panicked", "Failure": {"Message": "at the end"}}
]}]`

func TestLoadResults(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       []Result
		wrong      string
	}{
		{"what ran, by name, and a suite node that failed", report, []Result{
			{State: "panicked", Message: "at the end"},
			{Name: "[sig-network] DNS pods should resolve [Conformance]", State: "failed", Took: 1, Message: "Timed out"},
			{Name: "[sig-network] Services should serve [Conformance]", State: "passed", Took: 2 * time.Second},
		}, ""},
		{"nothing", "[]", nil, ""},
		{"cut off", report[:100], nil, "read report of the suite: unexpected end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := LoadResults([]byte(c.data))
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %v, want an error with %q", err, c.wrong)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestPassed(t *testing.T) {
	for state, want := range map[string]bool{"passed": true, "failed": false, "timedout": false, "panicked": false, "": false} {
		if got := (Result{State: state}).Passed(); got != want {
			t.Errorf("%q: got %v, want %v", state, got, want)
		}
	}
}

func FuzzLoadResults(f *testing.F) {
	f.Add([]byte(report))
	f.Add([]byte(`[{"SpecReports": null}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		results, err := LoadResults(data)
		for _, r := range results {
			if err != nil || r.State == "skipped" {
				t.Errorf("got %+v with %v", r, err)
			}
		}
	})
}

func TestDefaultSelection(t *testing.T) {
	which := Default()
	focus, skip := regexp.MustCompile(which.Focus), regexp.MustCompile(which.Skip)
	for text, want := range map[string]bool{
		"[sig-network] DNS should provide DNS for the cluster [Conformance]":                              true,
		"[sig-storage] Secrets should be consumable from pods in volume [NodeConformance] [Conformance]":  true,
		"[sig-apps] StatefulSet should have a working scale subresource [Conformance]":                    true,
		"[sig-network] Netpol NetworkPolicy between server and client should deny ingress":                true,
		"[sig-network] Netpol NetworkPolicy between server and client [Feature:SCTP] should deny":         false,
		"[sig-apps] Daemon set [Serial] should run [Conformance]":                                         false,
		"[sig-network] DNS should provide DNS for another thing":                                          false,
		"[sig-node] Container Lifecycle Hook should execute poststart [Conformance]":                      false,
		"[sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance] [Serial]":  false,
		"[sig-apps] CronJob should support CronJob API operations [Conformance]":                          true,
		"[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods [Conformance]":   true,
		"[sig-network] Networking Granular Checks: Pods should function for node-pod: udp [Conformance]":  true,
		"[sig-storage] Projected downwardAPI should update labels on modification [Conformance]":          true,
		"[sig-node] Secrets should be consumable from pods in env vars [NodeConformance] [Conformance]":   true,
		"[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]":        false,
		"[sig-network] Services should be able to switch session affinity for NodePort [Conformance]":     true,
		"[sig-storage] HostPath should support r/w":                                                       false,
		"[sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [NodeConformance] [Conformance]": true,
	} {
		if got := focus.MatchString(text) && !skip.MatchString(text); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// madeSuite is a folder as Build leaves it, with small programs; e2e.test lists images.
func madeSuite(t *testing.T) *Suite {
	t.Helper()
	s := &Suite{dir: t.TempDir()}
	for _, p := range programs() {
		if err := os.WriteFile(s.path(p.name), []byte("program "+p.name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range served() {
		if err := os.WriteFile(s.path(name), []byte("file "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := "#!/bin/sh\ncat <<-END\nregistry.k8s.io/pause:9.9\nregistry.k8s.io/e2e-test-images/agnhost:1.2\nregistry.k8s.io/e2e-test-images/nginx:1\nregistry.k8s.io/volume/nfs:1\nEND\n"
	if err := os.WriteFile(s.path("e2e.test"), []byte(list), 0o755); err != nil {
		t.Fatal(err)
	}
	root := s.path("root")
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/dig"), []byte("dig"), 0o4755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPush(t *testing.T) {
	r, err := registry.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	missing, err := madeSuite(t).Push(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"registry.k8s.io/volume/nfs:1"}; !reflect.DeepEqual(missing, want) {
		t.Errorf("missing: got %v, want %v", missing, want)
	}
	for image, want := range map[string]map[string]string{
		"pause:9.9": {"pause": "program pause"},
		"e2e-test-images/nginx:1": {
			"usr": "", "usr/bin": "", "usr/bin/dig": "dig", "usr/bin/sh": "-> bash", "bin": "-> usr/bin",
		},
		"e2e-test-images/agnhost:1.2": {
			"usr": "", "usr/bin": "", "usr/bin/dig": "dig", "usr/bin/sh": "-> bash", "bin": "-> usr/bin",
			"localhost.crt": "file localhost.crt", "localhost.key": "file localhost.key", "agnhost": "program agnhost", "coredns": "program coredns", "agnhost-2": "-> agnhost",
		},
	} {
		ref, err := name.ParseReference("127.0.0.1:"+portOf(r)+"/"+image, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		got, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		if files := filesOf(t, got); !reflect.DeepEqual(files, want) {
			t.Errorf("%s: got %v, want %v", image, files, want)
		}
	}
}

func TestPushNeedsWhatBuildMakes(t *testing.T) {
	r, err := registry.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	for _, c := range []struct{ name, gone, want string }{
		{"the suite", "e2e.test", "list images of the suite"},
		{"the root", "root", "pack root.tar"},
		{"a program", "agnhost", "make registry.k8s.io/e2e-test-images/agnhost:1.2: pack"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := madeSuite(t)
			if err := os.RemoveAll(s.path(c.gone)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Push(context.Background(), r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// Run takes what the report says, also where ginkgo ends in failure, and a report of a former run for nothing.
func TestRun(t *testing.T) {
	which := Selection{Focus: "DNS", Skip: "Slow", Procs: 3}
	for _, c := range []struct{ name, ginkgo, want string }{
		{"specs failed", "#!/bin/sh\nfor a; do case $a in --output-dir=*) cat > ${a#*=}/report.json <<-END\n" + report + "\nEND\n;; esac; done\nexit 197\n", ""},
		{"no report", "#!/bin/sh\nexit 3\n", "exit status 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := madeSuite(t)
			for file, text := range map[string]string{"ginkgo": c.ginkgo, "report.json": "[]"} {
				if err := os.WriteFile(s.path(file), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			results, err := s.Run(context.Background(), "/kubeconfig", which, io.Discard)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want an error with %q", err, c.want)
				}
				return
			}
			if err != nil || len(results) != 3 {
				t.Errorf("got %+v, %v, want three results", results, err)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	s := &Suite{dir: t.TempDir()}
	if err := s.files(context.Background()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(s.path("localhost.crt")); err != nil || !strings.Contains(string(data), "BEGIN CERTIFICATE") {
		t.Errorf("got %q, %v, want a certificate", data, err)
	}
}

func TestVersion(t *testing.T) {
	got, err := version(context.Background())
	if want := regexp.MustCompile(`version\.gitVersion=v1\.\d+\.\d+ .*gitMajor=1 .*gitMinor=\d+$`); err != nil || !want.MatchString(got) {
		t.Errorf("got %q, %v, want it to match %s", got, err, want)
	}
}

func portOf(r *registry.Registry) string { return strconv.Itoa(r.Port()) }

// filesOf is an image's files with what they hold, links with an arrow.
func filesOf(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for in := tar.NewReader(r); ; {
			h, err := in.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			if files[strings.TrimSuffix(h.Name, "/")] = string(data); h.Linkname != "" {
				files[h.Name] = "-> " + h.Linkname
			}
		}
	}
	return files
}
