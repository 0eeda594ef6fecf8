package etcdsnapshot

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/validation"
)

func TestParseName(t *testing.T) {
	for _, c := range []struct {
		name, node string
		want       Name
		ok         bool
	}{
		{"etcd-snapshot-cp-1-1700000000", "cp-1", Name{"etcd-snapshot", "cp-1", 1700000000, false}, true},
		{"on-demand-cp-1-1700000000.zip", "cp-1", Name{"on-demand", "cp-1", 1700000000, true}, true},
		{"x-a.example.org-0", "a.example.org", Name{"x", "a.example.org", 0, false}, true},
		{"etcd-snapshot-a-1-1700000000", "a", Name{}, false},   // a-1's
		{"etcd-snapshot-ba-1700000000", "a", Name{}, false},    // ba's
		{"etcd-snapshot-a-01700000000", "a", Name{}, false},    // not as we write it
		{"etcd-snapshot-a--1700000000", "a", Name{}, false},    // nor this
		{"etcd-snapshot-a-+1700000000", "a", Name{}, false},    // nor this
		{"etcd-snapshot-a-1700000000.tar", "a", Name{}, false}, // another's
		{"-a-1700000000", "a", Name{}, false},
		{"a-1700000000", "a", Name{}, false},
		{"etcd-snapshot-a-", "a", Name{}, false},
		{"etcd-snapshot-a-99999999999999999999", "a", Name{}, false},
		{"etcd-snapshot--1700000000", "", Name{}, false},
		{"", "a", Name{}, false},
	} {
		got, ok := ParseName(c.name, c.node)
		if got != c.want || ok != c.ok {
			t.Errorf("ParseName(%q, %q) = %+v, %v; want %+v, %v", c.name, c.node, got, ok, c.want, c.ok)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("etcd-snapshot-cp-1-1700000000.zip", "cp-1")
	f.Add("a-b-c-1", "b-c")
	f.Add("..-n-5", "n")
	f.Fuzz(func(t *testing.T, name, node string) {
		n, ok := ParseName(name, node)
		if !ok {
			return
		}
		if n.String() != name {
			t.Errorf("%q comes back as %q", name, n)
		}
		if n.Node != node || CheckPrefix(n.Prefix) != nil {
			t.Errorf("%q: %+v", name, n)
		}
		if at, ok := created(name); !ok || at.Unix() != n.Unix {
			t.Errorf("%q: created %v, %v; want %d", name, at, ok, n.Unix)
		}
	})
}

func TestCheckPrefixAndFile(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "a/b", "-a", "a-", "a b", "ä", "a\x00", strings.Repeat("a", 101)} {
		if CheckPrefix(bad) == nil {
			t.Errorf("prefix %q was taken", bad)
		}
	}
	for _, good := range []string{"a", "etcd-snapshot", "A.b_c-9"} {
		if err := CheckPrefix(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".hidden", "..", "../x", "a/b", `a\b`, "a\x00", strings.Repeat("a", 256)} {
		if CheckFile(bad) == nil {
			t.Errorf("file %q was taken", bad)
		}
	}
}

func TestExpired(t *testing.T) {
	files := func(names ...string) (all []File) {
		for _, n := range names {
			node, name, _ := strings.Cut(n, ":")
			all = append(all, File{Name: name, Node: node})
		}
		return all
	}
	all := files("a:s-a-3", "a:s-a-10.zip", "a:s-a-2", "a:other-a-1", "a:s-a-1-1", "b:s-b-1", "a-1:s-a-1-0", "b:s-a-0", "a:copied", "a:s-a-9")
	for _, c := range []struct {
		name string
		keep int
		want []string
	}{
		{"none is too many", 4, nil},
		{"the oldest by number, not by text", 2, []string{"s-a-3", "s-a-2"}},
		{"all but one", 1, []string{"s-a-9", "s-a-3", "s-a-2"}},
		{"0 keeps all", 0, nil},
	} {
		var got []string
		for _, f := range Expired(all, "s", "a", c.keep) {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	failed := files("a:s-a-1", "a:s-a-2")
	failed[1].Failure = "disk full"
	if got := Expired(failed, "s", "a", 1); len(got) != 0 {
		t.Errorf("a failure counts as a snapshot: %v expired", got)
	}
}

func TestObjectOf(t *testing.T) {
	at := time.Unix(1700000000, 0).UTC()
	f := File{Name: "On-Demand_x-cp-1-1700000000.zip", Node: "cp-1", Location: "file:///d/x", Size: 4096, Created: at, TokenHash: "abc"}
	o := ObjectOf(f)
	if !regexp.MustCompile(`^local-on-demand-x-cp-1-1700000000\.zip-[0-9a-f]{6}$`).MatchString(o.Name) {
		t.Errorf("name %q", o.Name)
	}
	if o.Labels[LabelStorageNode] != "cp-1" || o.Annotations[AnnotationTokenHash] != "abc" || !*o.Status.ReadyToUse || o.Status.Size.Value() != 4096 {
		t.Errorf("got %+v", o)
	}
	f.S3, f.Failure = &S3Target{Bucket: "b"}, "no route"
	o = ObjectOf(f)
	if !strings.HasPrefix(o.Name, "s3-") || o.Labels[LabelStorageNode] != StorageS3 || *o.Status.ReadyToUse || *o.Status.Error.Message != "no route" || o.Status.Size != nil {
		t.Errorf("got %+v", o)
	}
	other := f
	other.Node = "cp-2"
	if ObjectOf(other).Name == o.Name {
		t.Error("two nodes' snapshots have one name")
	}
}

func FuzzObjectName(f *testing.F) {
	f.Add("etcd-snapshot-a-1.zip")
	f.Add("-._ä..-")
	f.Add(strings.Repeat("a.", 150))
	f.Fuzz(func(t *testing.T, name string) {
		got := ObjectOf(File{Name: name}).Name
		if problems := validation.NameIsDNSSubdomain(got, false); len(problems) > 0 {
			t.Errorf("%q becomes %q: %v", name, got, problems)
		}
	})
}

func TestLocation(t *testing.T) {
	for want, target := range map[string]S3Target{
		"s3://b/n":     {Bucket: "b"},
		"s3://b/f/n":   {Bucket: "b", Prefix: "f"},
		"s3://b/f/g/n": {Bucket: "b", Prefix: "/f/g/"},
	} {
		if got := target.Location("n"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNewest(t *testing.T) {
	if _, ok, err := Newest(filepath.Join(t.TempDir(), "absent"), "cp-1"); ok || err != nil {
		t.Errorf("no folder: got %t, %v", ok, err)
	}
	dir := t.TempDir()
	for _, name := range []string{
		"etcd-snapshot-cp-1-1700000000", "on-demand-cp-1-1700000500.zip", "etcd-snapshot-cp-1-1700000100", // ours
		"etcd-snapshot-cp-2-1800000000", "brought-along", "etcd-snapshot-cp-1-1-1900000000", // not
		".etcd-snapshot-cp-1-1900000001.part.keelson-tmp", // of a power cut
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("1234"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := Newest(dir, "cp-1")
	if err != nil || !ok || got.Name != "on-demand-cp-1-1700000500.zip" || got.Created.Unix() != 1700000500 || got.Size != 4 || got.Location != "file://"+filepath.Join(dir, got.Name) {
		t.Errorf("got %+v, %t, %v", got, ok, err)
	}
	if _, ok, err := Newest(dir, "cp-3"); ok || err != nil {
		t.Errorf("none of that node: got %t, %v", ok, err)
	}
	if _, _, err := Newest(filepath.Join(dir, "brought-along"), "cp-1"); err == nil {
		t.Error("a file was taken for a folder")
	}
}
