package helmchart

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	"helm.sh/helm/v4/pkg/strvals"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson/node/release"
)

func inline(text string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(text)} }

func secretsOf(all map[string]map[string]string) secretOf {
	return func(name string) (map[string][]byte, bool, error) {
		if name == "unreadable" {
			return nil, false, errors.New("the API server says no")
		}
		found, ok := all[name]
		out := map[string][]byte{}
		for key, text := range found {
			out[key] = []byte(text)
		}
		return out, ok, nil
	}
}

// Each layer sets what the layers below it have set, but for one key that stays its own.
func TestOrder(t *testing.T) {
	chart := &helmv1.HelmChart{}
	chart.Spec.ValuesContent = "who: content\ncontent: 1\ndeep: {a: content, b: content}\nlist: [1, 2]\n"
	chart.Spec.Values = inline(`{"who": "values", "values": 1, "deep": {"a": "values"}}`)
	chart.Spec.ValuesSecrets = []helmv1.SecretSpec{{Name: "s", Keys: []string{"one", "two"}}}
	config := &helmv1.HelmChartConfig{}
	config.Spec.ValuesContent = "who: config content\nconfigContent: 1\n"
	config.Spec.Values = inline(`{"who": "config values", "configValues": 1, "list": [3]}`)
	config.Spec.ValuesSecrets = []helmv1.SecretSpec{{Name: "c", Keys: []string{"one"}}}
	secret := secretsOf(map[string]map[string]string{"s": {"one": "who: secret one\nsecretOne: 1\n", "two": "who: secret two\nsecretTwo: 1\n"}, "c": {"one": "who: config secret\n"}})
	whole := func() map[string]any {
		t.Helper()
		got, err := values(chart, config, secret, everything)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	who := func(want string) {
		t.Helper()
		if got := whole()["who"]; got != want {
			t.Errorf("got who: %v, want %s", got, want)
		}
	}
	chart.Spec.Set = map[string]intstr.IntOrString{"who": intstr.FromString("set")}
	who("set")
	want := map[string]any{
		"who": "set", "content": 1., "values": 1., "secretOne": 1., "secretTwo": 1., "configContent": 1., "configValues": 1.,
		"deep": map[string]any{"a": "values", "b": "content"}, "list": []any{3.},
	}
	if got := whole(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
	chart.Spec.Set = nil
	who("config secret")
	config.Spec.ValuesSecrets = nil
	who("config values")
	config.Spec.Values = nil
	who("config content")
	config = nil
	who("secret two")
	chart.Spec.ValuesSecrets[0].Keys = []string{"two", "one"}
	who("secret one")
	chart.Spec.ValuesSecrets[0].Keys = nil
	who("values")
	chart.Spec.Values = nil
	who("content")
	chart.Spec.ValuesContent = ""
	if got := whole(); got == nil || len(got) != 0 {
		t.Errorf("got %#v, want no values", got)
	}
}

func TestSet(t *testing.T) {
	chart := &helmv1.HelmChart{}
	chart.Spec.Set = map[string]intstr.IntOrString{
		"a.int": intstr.FromInt32(3), "a.text": intstr.FromString("3"), "a.yes": intstr.FromString("true"), "a.no": intstr.FromString("False"),
		"a.none": intstr.FromString("null"), "a.commas": intstr.FromString(`x,y\,z,{w}`), "list[1]": intstr.FromString("second"), `dotted\.key`: intstr.FromString("v"),
	}
	chart.Spec.ValuesContent = "a: {none: something}\n"
	got, err := values(chart, nil, nil, everything)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a":          map[string]any{"int": int64(3), "text": "3", "yes": true, "no": false, "none": nil, "commas": "x,y,z,{w}"},
		"list":       []any{nil, "second"},
		"dotted.key": "v",
	}
	// Helm itself says what null and False are.
	for _, key := range []string{"none=null", "no=False"} {
		helm, err := strvals.Parse(key)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range helm {
			want["a"].(map[string]any)[name] = value
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
	chart.Spec.Set = map[string]intstr.IntOrString{"a[x]": intstr.FromString("y")}
	if _, err := values(chart, nil, nil, everything); err == nil || !strings.Contains(err.Error(), "spec.set: a[x]") {
		t.Errorf("got %v", err)
	}
}

func TestValuesProblems(t *testing.T) {
	secret := secretsOf(map[string]map[string]string{"s": {"list": "- hunter2\n", "ok": "a: 1\n"}})
	for _, c := range []struct {
		name    string
		spec    helmv1.HelmChartSpec
		problem string
	}{
		{"content", helmv1.HelmChartSpec{ValuesContent: "a: [\n"}, "HelmChart ns/web: spec.valuesContent: "},
		{"values", helmv1.HelmChartSpec{Values: inline(`[1]`)}, "spec.values: "},
		{"no Secret", helmv1.HelmChartSpec{ValuesSecrets: []helmv1.SecretSpec{{Name: "none", Keys: []string{"a"}}}}, "spec.valuesSecrets[0]: Secret none does not exist"},
		{"no Secret, and none needed", helmv1.HelmChartSpec{ValuesSecrets: []helmv1.SecretSpec{{Name: "none", Keys: []string{"a"}, IgnoreUpdates: true}}}, ""},
		{"no key", helmv1.HelmChartSpec{ValuesSecrets: []helmv1.SecretSpec{{Name: "s", Keys: []string{"a"}}}}, "Secret s has no key a"},
		{"no key, and none needed", helmv1.HelmChartSpec{ValuesSecrets: []helmv1.SecretSpec{{Name: "s", Keys: []string{"a", "ok"}, IgnoreUpdates: true}}}, ""},
		{"not a mapping", helmv1.HelmChartSpec{ValuesSecrets: []helmv1.SecretSpec{{Name: "s", Keys: []string{"list"}}}}, "key list is not a mapping"},
		{"unreadable", helmv1.HelmChartSpec{ValuesSecrets: []helmv1.SecretSpec{{Name: "unreadable", Keys: []string{"a"}}}}, "says no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			chart := &helmv1.HelmChart{Spec: c.spec}
			chart.Namespace, chart.Name = "ns", "web"
			_, err := values(chart, nil, secret, everything)
			if (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
				t.Errorf("got %v, want %q", err, c.problem)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a Secret is in the message: %v", err)
			}
		})
	}
}

// The hash changes with all that makes another release, and with nothing else.
func TestHash(t *testing.T) {
	base := release.Wanted{Namespace: "ns"}
	of := func(chart string, values map[string]any, w release.Wanted) string {
		t.Helper()
		h, err := hash(chart, values, w)
		if err != nil || len(h) != 63 {
			t.Fatalf("got %q, %v", h, err)
		}
		return h
	}
	first := of("c", map[string]any{"a": 1, "b": map[string]any{"c": 2, "d": 3}}, base)
	if again := of("c", map[string]any{"b": map[string]any{"d": 3, "c": 2}, "a": 1}, base); again != first {
		t.Error("the order of keys counts")
	}
	same := base
	same.Policy, same.Timeout = release.Abort, 5
	if of("c", map[string]any{"a": 1, "b": map[string]any{"c": 2, "d": 3}}, same) != first {
		t.Error("what is done about a failure makes another release")
	}
	for name, h := range map[string]string{
		"chart": of("d", map[string]any{"a": 1, "b": map[string]any{"c": 2, "d": 3}}, base), "values": of("c", map[string]any{"a": 1}, base),
		"namespace": of("c", map[string]any{"a": 1, "b": map[string]any{"c": 2, "d": 3}}, release.Wanted{Namespace: "other"}),
		"ownership": of("c", map[string]any{"a": 1, "b": map[string]any{"c": 2, "d": 3}}, release.Wanted{Namespace: "ns", TakeOwnership: true}),
	} {
		if h == first {
			t.Errorf("another %s has the same hash", name)
		}
	}
	chart := &helmv1.HelmChart{}
	chart.Spec.ValuesSecrets = []helmv1.SecretSpec{{Name: "s", Keys: []string{"a"}, IgnoreUpdates: true}}
	got, err := values(chart, nil, secretsOf(map[string]map[string]string{"s": {"a": "x: 1\n"}}), watchedOnly)
	if err != nil || len(got) != 0 {
		t.Errorf("a Secret whose updates are ignored counts: got %v, %v", got, err)
	}
}

func FuzzEscapeCommas(f *testing.F) {
	for _, text := range []string{"", ",", `\,`, `\\,`, "a,b", `a\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		into := map[string]any{}
		if err := set(into, "key", intstr.FromString(text)); err != nil {
			return
		}
		if len(into) > 1 || into["key"] == nil && len(into) > 0 && !strings.EqualFold(text, "null") {
			t.Errorf("%q became %#v", text, into)
		}
	})
}
