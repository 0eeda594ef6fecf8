package reencryption

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/encryption"
	"keelson/node/nodeobject"
)

const newKey = "k8s:enc:aescbc:v1:aescbckey-2026-05-04T03:02:01Z:"

func (l *lab) ask(m *Manager, body string) error {
	l.t.Helper()
	r, err := ParseRequest([]byte(body))
	if err != nil {
		l.t.Fatal(err)
	}
	return m.Change(l.t.Context(), r)
}

// rotated checks the end of a rotation.
func (l *lab) rotated() {
	l.t.Helper()
	s, err := l.Load(l.t.Context())
	if err != nil || len(s.Keys) != 1 || s.Prefix() != newKey || s.Stage != encryption.Finished {
		l.t.Errorf("got %v, %v, %v", s, s.Keys, err)
	}
	for name, value := range l.secrets {
		if value != newKey && name != "gone" {
			l.t.Errorf("Secret %s is %s", name, value)
		}
	}
}

func TestRotateKeys(t *testing.T) {
	l := newLab(t)
	l.secrets["gone"] = "" // deleted between the list and the write
	m := l.manager()
	if err := l.ask(m, `{"stage":"rotate_keys","force":false,"skip":false}`); err != nil {
		t.Fatal(err)
	}
	l.rotated()
	if got, want := strings.Join(l.history, " "), "prepare rotate reencrypt_finished"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s, err := m.Status(t.Context())
	if err != nil || !s.HashMatch || s.HashError != "" || s.ActiveKey != "AES-CBC aescbckey-2026-05-04T03:02:01Z" || s.Keelson.Running || s.Keelson.Done != 6 {
		t.Errorf("got %+v, %v", s, err)
	}
	text, err := json.Marshal(s)
	now, _ := l.Load(t.Context())
	if err != nil || strings.Contains(string(text), now.Keys[0].Secret) {
		t.Errorf("the status shows a key: %s, %v", text, err)
	}
}

// Wherever the power goes, asking again ends the rotation, and no Secret was ever out of reach (lab.Replace).
func TestCutAnywhere(t *testing.T) {
	for at := 1; ; at++ {
		l := newLab(t)
		l.cutAt = at
		err := l.ask(l.manager(), `{"stage":"rotate_keys"}`)
		if err == nil {
			l.rotated()
			if at < 12 { // three writes of the record, before and after, and five Secrets, of which some fail together
				t.Errorf("no cut at write %d", at)
			}
			return
		}
		now, loadErr := l.Load(t.Context())
		if loadErr != nil {
			t.Fatal(loadErr)
		}
		if now.Stage == encryption.Finished {
			l.rotated() // cut behind the last write: asking again would begin another
			continue
		}
		if err := l.ask(l.manager(), `{"stage":"rotate_keys"}`); err != nil {
			t.Errorf("cut at write %d (%v), then %v", at, err, err)
		}
		l.rotated()
	}
}

func TestClassic(t *testing.T) {
	l := newLab(t)
	m := l.manager()
	if err := l.ask(m, `{"stage":"rotate"}`); !errors.Is(err, encryption.ErrStage) {
		t.Errorf("rotate first: got %v", err)
	}
	if err := l.ask(m, `{"stage":"reencrypt_active"}`); !errors.Is(err, encryption.ErrStage) {
		t.Errorf("reencrypt first: got %v", err)
	}
	for _, stage := range []string{"prepare", "rotate", "reencrypt_active"} {
		if err := l.ask(m, `{"stage":"`+stage+`"}`); err != nil {
			t.Fatalf("%s: %v", stage, err)
		}
	}
	l.rotated()
	if err := l.ask(m, `{"stage":"other"}`); !errors.Is(err, ErrRequest) {
		t.Errorf("unknown stage: got %v", err)
	}
}

func TestDisableAndEnable(t *testing.T) {
	l := newLab(t)
	m := l.manager()
	for _, c := range []struct{ body, want string }{
		{`{"enable":false}`, ""},
		{`{"enable":false}`, ""},
		{`{"enable":true}`, "k8s:enc:aescbc:v1:aescbckey:"},
	} {
		if err := l.ask(m, c.body); err != nil {
			t.Fatal(err)
		}
		s, err := m.Status(t.Context())
		if err != nil || *s.Enable != (c.want != "") || s.Stage != encryption.Start {
			t.Errorf("%s: got %+v, %v", c.body, s, err)
		}
		for name, value := range l.secrets {
			if value != c.want {
				t.Errorf("%s: Secret %s is %q, want %q", c.body, name, value, c.want)
			}
		}
	}
}

func TestAwaitNamesWhoLags(t *testing.T) {
	l := newLab(t)
	l.lazy["two"] = true
	m := l.manager()
	m.Deadline = 300 * time.Millisecond
	err := l.ask(m, `{"stage":"rotate_keys"}`)
	if !errors.Is(err, ErrLagging) || !strings.Contains(err.Error(), "two") || strings.Contains(err.Error(), "three") {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(l.history, " "); got != "prepare" {
		t.Errorf("got %q, want to stay at prepare", got)
	}
	s, err := m.Status(t.Context())
	if err != nil || s.HashMatch || !strings.Contains(s.HashError, "two") || s.Keelson.Error == "" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestRawEtcdHasTheLastWord(t *testing.T) {
	l := newLab(t)
	m := l.manager()
	m.Raw = func(_ context.Context, each func(string, []byte)) error {
		each(RawPrefix+"default/a", []byte("k8s:enc:aescbc:v1:aescbckey:data"))
		return nil
	}
	if err := l.ask(m, `{"stage":"rotate_keys"}`); err == nil {
		t.Error("a key was dropped under which there is a Secret")
	}
	m.Raw = func(context.Context, func(string, []byte)) error { return nil }
	if err := l.ask(m, `{"stage":"rotate_keys"}`); err == nil {
		t.Error("a key was dropped though etcd shows no Secret")
	}
	if s, err := l.Load(t.Context()); err != nil || len(s.Keys) != 2 {
		t.Errorf("got %v, %v", s.Keys, err)
	}
}

func TestReplaceIsCompareAndSwap(t *testing.T) {
	l := newLab(t)
	from, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next, err := from.Prepared(time.Now(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.record.Replace(t.Context(), from, next); err != nil {
		t.Fatal(err)
	}
	if err := l.record.Replace(t.Context(), from, next); !errors.Is(err, ErrMoved) {
		t.Errorf("got %v", err)
	}
}

func TestLagging(t *testing.T) {
	node := func(name, mark, member string, server bool) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{nodeobject.AnnotationEtcdName: member}}}
		if mark != "" {
			n.Annotations[Annotation] = mark
		}
		if server {
			n.Labels = map[string]string{nodeobject.LabelControlPlane: "true"}
		}
		return n
	}
	for _, c := range []struct {
		name    string
		nodes   []*corev1.Node
		members []string
		want    string
	}{
		{"all there", []*corev1.Node{node("a", "m", "a-1", true), node("w", "", "", false)}, []string{"a-1"}, ""},
		{"silent", []*corev1.Node{node("a", "", "a-1", true)}, []string{"a-1"}, "a (says nothing)"},
		{"behind", []*corev1.Node{node("a", "start-x", "a-1", true)}, nil, "a (is at another start)"},
		{"etcd alone", []*corev1.Node{node("a", "", "a-1", false)}, []string{"a-1"}, ""},
		{"joining", []*corev1.Node{node("a", "m", "a-1", true)}, []string{"a-1", "b-2", ""}, `etcd member "" (is joining), etcd member "b-2" (is joining)`},
	} {
		if got := strings.Join(lagging(c.nodes, c.members, "m"), ", "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

const sample = `# TYPE apiserver_encryption_config_controller_last_config_info gauge
apiserver_encryption_config_controller_last_config_info{apiserver_id_hash="sha256:1111",hash="sha256:abcd"} 1
`

func TestParseLoaded(t *testing.T) {
	if got, err := parseLoaded(strings.NewReader(sample)); err != nil || got != "abcd" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := parseLoaded(strings.NewReader("other 1\n")); err == nil {
		t.Errorf("got %q", got)
	}
}

func FuzzParseLoaded(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseLoaded(strings.NewReader(text)); err == nil && !strings.Contains(text, got) {
			t.Errorf("got %q", got)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"stage":"prepare","force":true}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := ParseRequest(body); err == nil && r.Stage == nil && r.Enable == nil {
			t.Error("a request for nothing")
		}
	})
}
