package kernel

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseCmdline(t *testing.T) {
	cases := []struct {
		name, in string
		want     Cmdline
	}{
		{"empty", "", nil},
		{"flags and values", "quiet console=tty0 console=ttyS0,115200\n", Cmdline{{"quiet", ""}, {"console", "tty0"}, {"console", "ttyS0,115200"}}},
		{"value with equals signs", "keelson.user-data=YQ==", Cmdline{{"keelson.user-data", "YQ=="}}},
		{"quoted value", `dyndbg="file a.c +p" x`, Cmdline{{"dyndbg", "file a.c +p"}, {"x", ""}}},
		{"quoted parameter", `"a=b c" d=e`, Cmdline{{"a", "b c"}, {"d", "e"}}},
		{"what is for init", "quiet -- single a=b", Cmdline{{"quiet", ""}}},
		{"open quote", `a="b c`, Cmdline{{"a", "b c"}}},
		{"no name", "=x y", Cmdline{{"y", ""}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := ParseCmdline(c.in); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCmdlineGetTakesTheLast(t *testing.T) {
	c := ParseCmdline("panic=1 a panic=10")
	if got, ok := c.Get("panic"); got != "10" || !ok {
		t.Errorf("Get(panic): got %q, %v, want 10", got, ok)
	}
	if _, ok := c.Get("b"); ok {
		t.Error("Get(b): found what is not there")
	}
}

func TestModuleParams(t *testing.T) {
	c := ParseCmdline(`keelson.slot=a nvme-core.io_timeout=4 nvme_core.multipath i915.x="a b" quiet`)
	want := map[string]string{"nvme_core": "io_timeout=4 multipath", "i915": `x="a b"`}
	if got := c.ModuleParams(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add(`a="b c" "d=e f" -- g`)
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range ParseCmdline(s) {
			if p.Name == "" || strings.Contains(p.Name, "=") {
				t.Errorf("%q: parameter %q", s, p)
			}
		}
	})
}

func TestParseRequest(t *testing.T) {
	cases := []struct {
		name string
		args []string
		want string
		ok   bool
	}{
		{"kernel's call", []string{"/usr/sbin/init", "-q", "--", "nft-expr-2-ct"}, "nft-expr-2-ct", true},
		{"by hand", []string{"init"}, "", false},
		{"runlevel", []string{"init", "6"}, "", false},
		{"no name", []string{"init", "-q", "--", ""}, "", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := ParseRequest(c.args); got != c.want || ok != c.ok {
				t.Errorf("got %q, %v, want %q, %v", got, ok, c.want, c.ok)
			}
		})
	}
}
