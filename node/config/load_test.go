package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestMergeRules is what becomes of one list key that stands in several files.
func TestMergeRules(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"one file", map[string]string{"config.yaml": "tls-san: [a, b]"}, []string{"a", "b"}},
		{"later replaces", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san: [b]"}, []string{"b"}},
		{"later appends", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san+: [b]"}, []string{"a", "b"}},
		{"append to nothing", map[string]string{"1.yaml": "tls-san+: [b]"}, []string{"b"}},
		{"append, then replace", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san+: [b]", "2.yaml": "tls-san: c"}, []string{"c"}},
		{"replace, then append", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san: [b]", "2.yaml": "tls-san+: c"}, []string{"b", "c"}},
		{"both in one file", map[string]string{"config.yaml": "tls-san: [a]\ntls-san+: [b]"}, []string{"a", "b"}},
		{"order of names, not of writing", map[string]string{"20.yaml": "tls-san+: [c]", "10.yaml": "tls-san+: [b]", "config.yaml": "tls-san: a"}, []string{"a", "b", "c"}},
		{"an empty list replaces", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san: []"}, nil},
		{"appending nothing changes nothing", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san+:"}, []string{"a"}},
		{"what comes twice stays twice", map[string]string{"config.yaml": "tls-san: [a]", "1.yaml": "tls-san+: [a]"}, []string{"a", "a"}},
		{"commas", map[string]string{"config.yaml": "tls-san: a, b,c", "1.yaml": "tls-san+: 'd,'"}, []string{"a", "b", "c", "d"}},
		{"capital ending", map[string]string{"config.yaml": "tls-san: [a]", "1.YAML": "tls-san: [b]"}, []string{"b"}},
		{"other endings are not read", map[string]string{"config.yaml": "tls-san: [a]", "1.json": "tls-san: [b]", "2.yaml.bak": "tls-san: [c]"}, []string{"a"}},
		{"anchors", map[string]string{"config.yaml": "node-label: &n [x=1]\ntls-san: &s [a, b]\nnode-taint: []\n", "1.yaml": "tls-san+: [c]"}, []string{"a", "b", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := load(t, c.files)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.TLSSAN, c.want) {
				t.Errorf("got %q, want %q", got.TLSSAN, c.want)
			}
		})
	}
}

// TestArgumentsMerge: flags of components may hold commas and are told apart by the component's own reader, so files
// only put them one behind the other.
func TestArgumentsMerge(t *testing.T) {
	got, err := load(t, map[string]string{
		"config.yaml": "kube-apiserver-arg:\n- feature-gates=A=true,B=false\n- v=2\netcd-extra-env: [A=1]\n",
		"1.yaml":      "kube-apiserver-arg+: v=4\netcd-extra-env: [B=2]\n",
		"2.yaml":      "kube-apiserver-arg+:\n- enable-admission-plugins+=X\n- oidc-groups-prefix-=y\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"feature-gates=A=true,B=false", "v=2", "v=4", "enable-admission-plugins+=X", "oidc-groups-prefix-=y"}
	if !slices.Equal(got.APIServer.Args, want) {
		t.Errorf("arguments: got %q, want %q", got.APIServer.Args, want)
	}
	if want := []string{"B=2"}; !slices.Equal(got.Etcd.ExtraEnv, want) {
		t.Errorf("variables: got %q, want %q", got.Etcd.ExtraEnv, want)
	}
}

// TestMapsMerge: settings of the form name=value of one list; the last of a name wins.
func TestMapsMerge(t *testing.T) {
	got, err := load(t, map[string]string{
		"config.yaml": "control-plane-resource-requests: [etcd-cpu=1, etcd-memory=1Gi]\ncontrol-plane-probe-configuration: etcd-startup-period-seconds=1,etcd-startup-period-seconds=2\n",
		"1.yaml":      "control-plane-resource-requests+: etcd-cpu=2\ncontrol-plane-resource-limits: []\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"etcd-cpu": "2", "etcd-memory": "1Gi"}; !reflect.DeepEqual(got.ControlPlaneResourceRequests, want) {
		t.Errorf("requests: got %v, want %v", got.ControlPlaneResourceRequests, want)
	}
	if len(got.ControlPlaneResourceLimits) != 0 {
		t.Errorf("limits: got %v, want none", got.ControlPlaneResourceLimits)
	}
	if want := map[string]int32{"etcd-startup-period-seconds": 2}; !reflect.DeepEqual(got.ControlPlaneProbes, want) {
		t.Errorf("probes: got %v, want %v", got.ControlPlaneProbes, want)
	}
}

// TestEmptyValueAsksForTheDefault, as it does in RKE2; an empty text would be a folder "" or no pod network.
func TestEmptyValueAsksForTheDefault(t *testing.T) {
	want := Default()
	for _, k := range honoured() {
		field, isText := k.bind(&want).(*string)
		if !isText {
			continue
		}
		for _, form := range []string{"", `""`, "null", "~"} {
			got, err := load(t, map[string]string{"config.yaml": k.Name + ": " + form + "\n"})
			if err != nil {
				t.Errorf("%s: %s: %v", k.Name, form, err)
				continue
			}
			if have := *k.bind(&got).(*string); have != *field {
				t.Errorf("%s: %s: got %q, want the default %q", k.Name, form, have, *field)
			}
		}
	}
	// A later file may take a value back by leaving it empty.
	got, err := load(t, map[string]string{"config.yaml": "cni: none\nnode-name: a\n", "1.yaml": "cni:\nnode-name:\n"})
	if err != nil || got.CNI != CNIFlannel || got.NodeName != "" {
		t.Errorf("taken back: got cni %q, node-name %q, %v", got.CNI, got.NodeName, err)
	}
}

// TestScalarsStayText: YAML would make numbers, dates and truth values of what are names and passwords.
func TestScalarsStayText(t *testing.T) {
	for _, c := range []struct{ name, written, want string }{
		{"octal number", "0755", "0755"},
		{"leading zeros", "007", "007"},
		{"float", "1.10", "1.10"},
		{"exponent", "1e5", "1e5"},
		{"truth value", "yes", "yes"},
		{"date", "2026-01-02", "2026-01-02"},
		{"hexadecimal", "0xff", "0xff"},
		{"quoted", `"a: b # c"`, "a: b # c"},
		{"hash without a space", "a#b", "a#b"},
		{"blanks inside", "a b", "a b"},
		{"tilde in quotes", `"~"`, "~"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := load(t, map[string]string{"config.yaml": "token: " + c.written + "\n"})
			if err != nil || got.Token.Reveal() != c.want {
				t.Errorf("got %q, %v; want %q", got.Token.Reveal(), err, c.want)
			}
		})
	}
}

func TestSwitches(t *testing.T) {
	for text, want := range map[string]bool{"true": true, "True": true, "TRUE": true, "1": true, "t": true, `"true"`: true, "false": false, "False": false, "0": false} {
		got, err := load(t, map[string]string{"config.yaml": "debug: " + text + "\n"})
		if err != nil || got.Debug != want {
			t.Errorf("%s: got %v, %v; want %v", text, got.Debug, err, want)
		}
	}
	for _, text := range []string{"yes", "on", "2", "[true, false]", "{}"} {
		if _, err := load(t, map[string]string{"config.yaml": "debug: " + text + "\n"}); err == nil {
			t.Errorf("%s: passed", text)
		}
	}
}

func TestModes(t *testing.T) {
	for text, want := range map[string]fs.FileMode{"0600": 0o600, "600": 0o600, "0o640": 0o640, `"0644"`: 0o644, "0": 0, "777": 0o777} {
		got, err := load(t, map[string]string{"config.yaml": "write-kubeconfig-mode: " + text + "\n"})
		if err != nil || got.WriteKubeconfigMode != want {
			t.Errorf("%s: got %v, %v; want %v", text, got.WriteKubeconfigMode, err, want)
		}
	}
	for _, text := range []string{"1000", "0x1ff", "-600", "888", "rw-r--r--", ""} {
		if _, err := load(t, map[string]string{"config.yaml": "write-kubeconfig-mode: " + text + "\n"}); err == nil {
			t.Errorf("%s: passed", text)
		}
	}
}

// TestTokenFileRules: the key with the value itself wins, and a file that gives nothing usable is told with its
// place, never with its content.
func TestTokenFileRules(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, text, token, problem string }{
		{"blanks around it go", "token-file: " + file("a", "  hush\n\n"), "hush", ""},
		{"value beats file", "token: direct\ntoken-file: " + file("b", "hush"), "direct", ""},
		{"value beats an absent file", "token: direct\ntoken-file: " + dir + "/none", "direct", ""},
		{"empty value lets the file speak", "token:\ntoken-file: " + file("c", "hush"), "hush", ""},
		{"empty file", "\ntoken-file: " + file("d", "\n"), "", "line 2: token-file: " + dir + "/d is empty; put the token into it"},
		{"two lines", "token-file: " + file("e", "hush\nhush"), "", "line 1: token-file: " + dir + "/e holds a line break or control character; write it on one line"},
		{"a folder", "token-file: " + dir, "", "is a directory"},
		{"too large", "token-file: " + file("f", strings.Repeat("x", maxFile+1)), "", "settings are at most"},
		{"relative", "token-file: token", "", `line 1: token-file: is "token"; write a clean absolute path`},
		{"agent's", "agent-token-file: " + dir + "/none", "", "line 1: agent-token-file: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := load(t, map[string]string{"config.yaml": c.text})
			if got.Token.Reveal() != c.token {
				t.Errorf("got token %q, want %q", got.Token.Reveal(), c.token)
			}
			if (err == nil) != (c.problem == "") || !strings.Contains(fmt.Sprint(err), c.problem) && c.problem != "" {
				t.Errorf("got error %v, want %q", err, c.problem)
			}
			if strings.Contains(fmt.Sprint(err), "hush") {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

// TestFilesThatCannotBeRead are no settings mistakes and are told by their path.
func TestFilesThatCannotBeRead(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, main string)
		want    string
	}{
		{"main is a folder", func(t *testing.T, main string) { mkdir(t, main) }, "is a directory"},
		{"additions are a file", func(t *testing.T, main string) { put(t, main+".d", "") }, "not a directory"},
		{"main is too large", func(t *testing.T, main string) { put(t, main, "# "+strings.Repeat("x", maxFile)) }, "settings are at most 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			main := filepath.Join(t.TempDir(), "config.yaml")
			c.prepare(t, main)
			_, err := Load(main)
			if err == nil || !strings.HasPrefix(err.Error(), "read settings: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// A folder inside the folder of additions is none of them; a dangling link is a file that is not there.
	main := filepath.Join(t.TempDir(), "config.yaml")
	mkdir(t, filepath.Join(main+".d", "x.yaml"))
	if err := os.Symlink("nowhere", filepath.Join(main+".d", "y.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(main); err != nil {
		t.Errorf("folder and dangling link: %v", err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSyntaxProblems are mistakes of YAML itself; the place must be right, for there is no key to look for.
func TestSyntaxProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"tab", "debug: true\n\ttoken: a", "line 2: is not valid YAML: "},
		{"open quote", "token: \"a\nnode-name: b\n", "is not valid YAML: "},
		{"undefined alias", "tls-san: *x", "is not valid YAML: unknown anchor 'x' referenced"},
		{"alias to itself", "tls-san: &x [*x]", "tls-san: "},
		{"scalar at the top", "hello", "line 1: is a single value; write key: value lines"},
		{"key that is a list", "? [a]\n: b\n", "line 1: a key is not plain text"},
		{"second document broken", "debug: true\n---\na: [\n", "is not valid YAML: "},
		{"plus twice", "tls-san+: [a]\ntls-san+: [b]\n", "line 2: tls-san: is here for the second time in this file; keep one"},
		{"plus on a switch", "debug+: true", "line 1: debug: is a list; give one value"},
		{"null key", "~: x", "line 1: ~: is not a known key; remove it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, map[string]string{"config.yaml": c.text})
			if err == nil || !strings.Contains(err.Error(), "config.yaml: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	for _, text := range []string{"", "---\n", "# nothing\n", "{}\n", "null\n"} {
		if _, err := load(t, map[string]string{"config.yaml": text}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestAliasesAreFollowed: one list may be written once and used twice.
func TestAliasesAreFollowed(t *testing.T) {
	got, err := load(t, map[string]string{"config.yaml": "tls-san: &names [a.example, &first b.example]\nnode-name: *first\ndisable: *names\n"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.example", "b.example"}; got.NodeName != "b.example" || !slices.Equal(got.Disable, want) {
		t.Errorf("got node-name %q, disable %q", got.NodeName, got.Disable)
	}
}

// TestSuggestions: a slip of a letter or two is recognised, a word of another tongue is not.
func TestSuggestions(t *testing.T) {
	for key, want := range map[string]string{
		"Token": "token", "tls_san": "tls-san", "cluster-cird": "cluster-cidr", "node-lable": "node-label",
		"kubelet-args": "kubelet-arg", "etcd-args": "etcd-arg", "disabled": "disable", "servce-cidr": "service-cidr",
		"write-kubeconfig-mod": "write-kubeconfig-mode", "kube-apiserver-extra-mounts": "kube-apiserver-extra-mount",
		"cloud-controller-manager-arg": "", "": "", "x": "", "zzzzzz": "", "hostname": "",
	} {
		_, err := load(t, map[string]string{"config.yaml": fmt.Sprintf("%q: x\n", key)})
		if err == nil {
			t.Errorf("%s: passed", key)
			continue
		}
		_, got, _ := strings.Cut(err.Error(), "did you mean ")
		if got = strings.TrimSuffix(got, "?"); got != want {
			t.Errorf("%s: got suggestion %q, want %q", key, got, want)
		}
	}
}

// TestCheckTellsRefusalsAndTypes: init judges the section of user-data by the same table.
func TestCheckTellsRefusalsAndTypes(t *testing.T) {
	var doc yaml.Node
	text := "rke2:\n  cni: canal\n  server: https://x\n  debug: [a]\n  tls-san: [a, 'b c']\n  token-file: /not/read\n"
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range Check(doc.Content[0].Content[1], "user-data") {
		got = append(got, fmt.Sprintf("%d %s", p.Line, p.Key))
	}
	if want := []string{"2 cni", "3 server", "4 debug", "5 tls-san"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Check(&yaml.Node{Kind: yaml.ScalarNode, Value: "x", Line: 7}, "user-data"); len(got) != 1 || got[0].Line != 7 {
		t.Errorf("no mapping: got %v", got)
	}
}

func TestProblemWording(t *testing.T) {
	for _, c := range []struct {
		p    Problem
		want string
	}{
		{Problem{"f", 3, "k", "m"}, "f: line 3: k: m"},
		{Problem{"f", 0, "k", "m"}, "f: k: m"},
		{Problem{"f", 3, "", "m"}, "f: line 3: m"},
		{Problem{File: "f", Message: "m"}, "f: m"},
	} {
		if got := c.p.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if err := (Problems{}).err(); err != nil {
		t.Errorf("no problems: got %v", err)
	}
	if got := (Problems{{File: "a", Message: "x"}, {File: "b", Message: "y"}}).Error(); got != "a: x\nb: y" {
		t.Errorf("two: got %q", got)
	}
}
