package argument

import (
	"slices"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	base := map[string]string{"controllers": "*,tokencleaner", "profiling": "false", "a": "1"}
	for _, c := range []struct {
		name  string
		extra []string
		want  []string
	}{
		{"nothing extra", nil, []string{"--a=1", "--controllers=*,tokencleaner", "--profiling=false"}},
		{"replace", []string{"profiling=true"}, []string{"--a=1", "--controllers=*,tokencleaner", "--profiling=true"}},
		{"dashes are allowed", []string{"--profiling=true"}, []string{"--a=1", "--controllers=*,tokencleaner", "--profiling=true"}},
		{"no value is true", []string{"v2"}, []string{"--a=1", "--controllers=*,tokencleaner", "--profiling=false", "--v2=true"}},
		{"append", []string{"a+=2"}, []string{"--a=1", "--a=2", "--controllers=*,tokencleaner", "--profiling=false"}},
		{"prepend", []string{"a-=0"}, []string{"--a=0", "--a=1", "--controllers=*,tokencleaner", "--profiling=false"}},
		{"both ends", []string{"a+=2", "a-=0"}, []string{"--a=0", "--a=1", "--a=2", "--controllers=*,tokencleaner", "--profiling=false"}},
		{"repeated", []string{"a=5", "a=6"}, []string{"--a=5", "--a=6", "--controllers=*,tokencleaner", "--profiling=false"}},
		{"value with equals signs", []string{"feature-gates=A=true,B=false"}, []string{"--a=1", "--controllers=*,tokencleaner", "--feature-gates=A=true,B=false", "--profiling=false"}},
		{"empty value", []string{"a="}, []string{"--a=", "--controllers=*,tokencleaner", "--profiling=false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Merge(base, c.extra)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if len(base) != 3 {
				t.Error("base was changed")
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	for _, arg := range []string{"", "=x", "+=x", "--", "a b=c", "---x=1", "a=\x00"} {
		if got, err := Merge(nil, []string{arg}); err == nil {
			t.Errorf("%q: got %q, want an error", arg, got)
		} else if !strings.Contains(err.Error(), "name=value") {
			t.Errorf("%q: error %q does not say what to write", arg, err)
		}
		if _, err := Names([]string{arg}); err == nil {
			t.Errorf("Names(%q): want an error", arg)
		}
	}
}

func TestNames(t *testing.T) {
	got, err := Names([]string{"--a=1", "b+=2", "c-=3", "d"})
	if want := []string{"a", "b", "c", "d"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func FuzzMerge(f *testing.F) {
	f.Add("a=1", "a+=2")
	f.Add("--x", "x-==")
	f.Fuzz(func(t *testing.T, one, two string) {
		got, err := Merge(map[string]string{"a": "0"}, []string{one, two})
		if err != nil {
			return
		}
		for _, arg := range got {
			if !strings.HasPrefix(arg, "--") || !strings.Contains(arg, "=") {
				t.Errorf("%q is not a flag", arg)
			}
		}
	})
}
