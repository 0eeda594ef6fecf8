package mirror

import (
	"strings"
	"testing"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, path, registry string
		want                 question // zero: refused
	}{
		{"a manifest by tag", "/v2/library/busybox/manifests/1.36", "docker.io", question{registry: "docker.io", repository: "library/busybox", manifest: true, tag: "1.36"}},
		{"a manifest by digest", "/v2/a/manifests/" + someDigest, "reg.example:5000", question{registry: "reg.example:5000", repository: "a", manifest: true, digest: someDigest}},
		{"a blob", "/v2/a/b/c/blobs/" + someDigest, "[fd00::1]:5000", question{registry: "[fd00::1]:5000", repository: "a/b/c", digest: someDigest}},
		{"a repository called manifests", "/v2/manifests/manifests/x", "r", question{registry: "r", repository: "manifests", manifest: true, tag: "x"}},
		{"separators", "/v2/a.b_c__d---e/manifests/x", "r", question{registry: "r", repository: "a.b_c__d---e", manifest: true, tag: "x"}},
		{name: "a blob by tag", path: "/v2/a/blobs/latest", registry: "r"},
		{name: "no registry", path: "/v2/a/manifests/x"},
		{name: "a registry with a path", path: "/v2/a/manifests/x", registry: "r/x"},
		{name: "a registry with a user", path: "/v2/a/manifests/x", registry: "u@r"},
		{name: "a registry that is a folder", path: "/v2/a/manifests/x", registry: ".."},
		{name: "a registry without end", path: "/v2/a/manifests/x", registry: strings.Repeat("r", 256)},
		{name: "no repository", path: "/v2/manifests/x", registry: "r"},
		{name: "an empty repository", path: "/v2//manifests/x", registry: "r"},
		{name: "upwards", path: "/v2/a/../b/manifests/x", registry: "r"},
		{name: "capitals", path: "/v2/A/manifests/x", registry: "r"},
		{name: "three underscores", path: "/v2/a___b/manifests/x", registry: "r"},
		{name: "two dots", path: "/v2/a..b/manifests/x", registry: "r"},
		{name: "a separator at the end", path: "/v2/a-/manifests/x", registry: "r"},
		{name: "a repository without end", path: "/v2/" + strings.Repeat("a", 256) + "/manifests/x", registry: "r"},
		{name: "a tag with a dot in front", path: "/v2/a/manifests/.x", registry: "r"},
		{name: "a tag without end", path: "/v2/a/manifests/" + strings.Repeat("x", 129), registry: "r"},
		{name: "an unknown hash", path: "/v2/a/blobs/md5:0123456789abcdef0123456789abcdef", registry: "r"},
		{name: "a short hash", path: "/v2/a/blobs/sha256:0123", registry: "r"},
		{name: "the list of tags", path: "/v2/a/tags/list", registry: "r"},
		{name: "the catalogue", path: "/v2/_catalog", registry: "r"},
		{name: "an upload", path: "/v2/a/blobs/uploads/", registry: "r"},
		{name: "another API", path: "/v1/a/manifests/x", registry: "r"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parse(c.path, c.registry)
			if (err != nil) != (c.want == question{}) || got != c.want {
				t.Fatalf("got %+v, %v, want %+v", got, err, c.want)
			}
			if err == nil && got.path() != c.path {
				t.Errorf("path: got %s, want %s", got.path(), c.path)
			}
		})
	}
}

func TestOneRange(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "bytes=0-1": "bytes=0-1", "bytes=5-": "bytes=5-", "bytes=-5": "bytes=-5",
		"bytes=-": "", "bytes=0-1,3-4": "", "lines=0-1": "", "bytes=a-b": "", "bytes=--1": "", "bytes=0": "",
		"bytes=" + strings.Repeat("9", 19) + "-": "",
	} {
		if got := oneRange(header); got != want {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
}

func TestHostname(t *testing.T) {
	for registry, want := range map[string]string{"docker.io": "docker.io", "r:5000": "r", "[fd00::1]": "[fd00::1]", "[fd00::1]:5000": "[fd00::1]"} {
		if got := hostname(registry); got != want {
			t.Errorf("%s: got %s, want %s", registry, got, want)
		}
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		registries []string
		registry   string
		want       bool
	}{
		{nil, "docker.io", false},
		{[]string{"docker.io"}, "docker.io", true},
		{[]string{"docker.io"}, "quay.io", false},
		{[]string{"r.example"}, "r.example:5000", false},
		{[]string{"*"}, "quay.io", true},
		{[]string{"*", SystemRegistry}, SystemRegistry, false},
		{[]string{"*"}, "localhost:5000", false},
		{[]string{"*"}, "127.0.0.1:5000", false},
		{[]string{"*"}, "[::1]:5000", false},
		{[]string{"*"}, "10.0.0.1:5000", true},
	} {
		if got := Shares(c.registries, c.registry); got != c.want {
			t.Errorf("%v of %s: got %v, want %v", c.registries, c.registry, got, c.want)
		}
	}
}

// What parse takes leads nowhere else, and comes out as it went in.
func FuzzParse(f *testing.F) {
	f.Add("/v2/library/busybox/manifests/1.36", "docker.io")
	f.Add("/v2/a/blobs/"+someDigest, "r:5000")
	f.Add("/v2/a/../manifests/manifests/x", "[::1]")
	f.Fuzz(func(t *testing.T, path, registry string) {
		q, err := parse(path, registry)
		if err != nil {
			return
		}
		if got := q.path(); got != path {
			t.Errorf("path: got %q, want %q", got, path)
		}
		for _, part := range strings.Split(path, "/")[1:] {
			if part == "" || part == "." || part == ".." {
				t.Errorf("%q has %q in it", path, part)
			}
		}
		if strings.ContainsAny(registry, "/\\@?#% \x00") {
			t.Errorf("registry %q", registry)
		}
	})
}

// A Range that is passed on asks for one run of bytes.
func FuzzOneRange(f *testing.F) {
	f.Add("bytes=0-1")
	f.Add("bytes=0-1,2-3")
	f.Fuzz(func(t *testing.T, header string) {
		if got := oneRange(header); got != "" && (got != header || strings.ContainsAny(got, ", \r\n") || strings.Count(got, "-") != 1) {
			t.Errorf("got %q of %q", got, header)
		}
	})
}
