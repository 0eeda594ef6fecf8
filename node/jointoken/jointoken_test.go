package jointoken_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson/node/jointoken"
	"keelson/node/token"
)

var update = flag.Bool("update", false, "write golden files")

func at() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }

func whole() jointoken.Token {
	return jointoken.Token{ID: "abcdef", Secret: "0123456789abcdef", Description: "for the rack", Expires: at().Add(24 * time.Hour),
		Usages: []string{"authentication", "signing"}, Groups: []string{"system:bootstrappers:a", jointoken.DefaultGroup}}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// TestSecret: the form is kubeadm's.
func TestSecret(t *testing.T) {
	got, err := yaml.Marshal(jointoken.ToSecret(whole()))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "secret.yaml", got)
	for name, want := range map[string]jointoken.Token{
		"whole": whole(),
		"least": {ID: "aaaaaa", Secret: "bbbbbbbbbbbbbbbb"},
	} {
		s := jointoken.ToSecret(want)
		if want.Expires.IsZero() != (s.Data["expiration"] == nil) {
			t.Errorf("%s: expiration %q", name, s.Data["expiration"])
		}
		back, err := jointoken.FromSecret(s)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(want) || back.Secret != want.Secret {
			t.Errorf("%s: got %+v, %v", name, back, err)
		}
	}
}

func TestForeignSecrets(t *testing.T) {
	for name, change := range map[string]func(*corev1.Secret){
		"another type":       func(s *corev1.Secret) { s.Type = "Opaque" },
		"another name":       func(s *corev1.Secret) { s.Name = "bootstrap-token-zzzzzz" },
		"no id":              func(s *corev1.Secret) { delete(s.Data, "token-id") },
		"no secret":          func(s *corev1.Secret) { delete(s.Data, "token-secret") },
		"a short secret":     func(s *corev1.Secret) { s.Data["token-secret"] = []byte("hush") },
		"a time in words":    func(s *corev1.Secret) { s.Data["expiration"] = []byte("tomorrow") },
		"a group of masters": func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") },
		"a group beside":     func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:bootstrappers:a,rke2:server") },
		"no data":            func(s *corev1.Secret) { s.Data = nil },
	} {
		s := jointoken.ToSecret(whole())
		s.Name = "bootstrap-token-abcdef"
		change(s)
		_, err := jointoken.FromSecret(s)
		if err == nil || !strings.Contains(err.Error(), "kube-system/bootstrap-token-") || strings.Contains(err.Error(), "0123456789abcdef") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v", name, err)
		}
		v := jointoken.Verifier{Get: jointoken.Client{Secrets: fake.NewClientset(s).CoreV1().Secrets("kube-system")}.Getter(), Now: at}
		if got, err := v.Verify(t.Context(), "abcdef", "0123456789abcdef"); !errors.Is(err, jointoken.ErrUnknown) {
			t.Errorf("%s: verified as %v, %v", name, got, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*jointoken.Token){
		"id":                     func(t *jointoken.Token) { t.ID = "ABCDEF" },
		"id with a dot":          func(t *jointoken.Token) { t.ID = "abc.def" },
		"secret":                 func(t *jointoken.Token) { t.Secret = "short" },
		"usage":                  func(t *jointoken.Token) { t.Usages = []string{"authentication", "everything"} },
		"group":                  func(t *jointoken.Token) { t.Groups = []string{"system:masters"} },
		"group that ends badly":  func(t *jointoken.Token) { t.Groups = []string{"system:bootstrappers:a:"} },
		"group with a line":      func(t *jointoken.Token) { t.Groups = []string{"system:bootstrappers:a\n"} },
		"groups without the use": func(t *jointoken.Token) { t.Usages = []string{"signing"} },
	} {
		x := whole()
		change(&x)
		if err := x.Check(); err == nil || strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := whole().Check(); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	signing := jointoken.Token{ID: "signer", Secret: "0123456789abcdef", Usages: []string{"signing"}}
	forever := jointoken.Token{ID: "foreve", Secret: "0123456789abcdef", Usages: []string{"authentication"}}
	client := fake.NewClientset(jointoken.ToSecret(whole()), jointoken.ToSecret(signing), jointoken.ToSecret(forever))
	now := at()
	v := jointoken.Verifier{Get: jointoken.Client{Secrets: client.CoreV1().Secrets("kube-system")}.Getter(), Now: func() time.Time { return now }}
	end := at().Add(24 * time.Hour)
	for _, c := range []struct {
		name, id, secret string
		now              time.Time
		groups           []string
		err              error
	}{
		{"right", "abcdef", "0123456789abcdef", at(), []string{"system:bootstrappers", "system:bootstrappers:a", jointoken.DefaultGroup}, nil},
		{"a moment before its end", "abcdef", "0123456789abcdef", end.Add(-time.Nanosecond), []string{"system:bootstrappers", "system:bootstrappers:a", jointoken.DefaultGroup}, nil},
		{"at its end", "abcdef", "0123456789abcdef", end, nil, jointoken.ErrExpired},
		{"wrong secret after its end", "abcdef", "0123456789abcdee", end, nil, jointoken.ErrUnknown},
		{"wrong secret", "abcdef", "0123456789abcdee", at(), nil, jointoken.ErrUnknown},
		{"empty secret", "abcdef", "", at(), nil, jointoken.ErrUnknown},
		{"unknown", "zzzzzz", "0123456789abcdef", at(), nil, jointoken.ErrUnknown},
		{"an id that is a path", "../foo", "0123456789abcdef", at(), nil, jointoken.ErrUnknown},
		{"an id that is a whole token", "K10::abcdef", "0123456789abcdef", at(), nil, jointoken.ErrUnknown},
		{"empty", "", "", at(), nil, jointoken.ErrUnknown},
		{"not for this", "signer", "0123456789abcdef", at(), nil, jointoken.ErrUsage},
		{"without an end or groups", "foreve", "0123456789abcdef", at().AddDate(50, 0, 0), []string{"system:bootstrappers"}, nil},
	} {
		now = c.now
		got, err := v.Verify(t.Context(), c.id, token.Secret(c.secret))
		slices.Sort(got.Groups)
		slices.Sort(c.groups)
		if !errors.Is(err, c.err) || !slices.Equal(got.Groups, c.groups) || c.err == nil && got.Name != "system:bootstrap:"+c.id {
			t.Errorf("%s: got %v, %v; want %v, %v", c.name, got, err, c.groups, c.err)
		}
	}
	now = end.Add(time.Hour)
	_, err := v.Verify(t.Context(), "abcdef", "0123456789abcdef")
	if want := "the bootstrap token abcdef expired at " + end.UTC().Format(time.RFC3339) + ": make a new one with `node token create`"; err == nil || err.Error() != want {
		t.Errorf("after its end: got %v, want %s", err, want)
	}
	now = at()
	down := errors.New("down")
	client.PrependReactor("get", "secrets", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, down })
	if _, err := v.Verify(t.Context(), "abcdef", "0123456789abcdef"); !errors.Is(err, down) || errors.Is(err, jointoken.ErrUnknown) {
		t.Errorf("nobody to ask: got %v", err)
	}
	gone := jointoken.ToSecret(forever)
	deleted := now
	gone.DeletionTimestamp = &metav1.Time{Time: deleted}
	client = fake.NewClientset(gone)
	v.Get = jointoken.Client{Secrets: client.CoreV1().Secrets("kube-system")}.Getter()
	if _, err := v.Verify(t.Context(), "foreve", "0123456789abcdef"); !errors.Is(err, jointoken.ErrUnknown) {
		t.Errorf("being deleted: got %v", err)
	}
}

func TestClient(t *testing.T) {
	set := fake.NewClientset()
	c := jointoken.Client{Secrets: set.CoreV1().Secrets("kube-system")}
	ctx := t.Context()
	if all, err := c.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("empty: %v, %v", all, err)
	}
	second := whole()
	second.ID = "aaaaaa"
	for _, x := range []jointoken.Token{whole(), second} {
		if err := c.Create(ctx, x); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Create(ctx, whole()); err == nil || !strings.Contains(err.Error(), `"abcdef" already exists`) {
		t.Errorf("again: got %v", err)
	}
	bad := whole()
	bad.Groups = []string{"system:masters"}
	if err := c.Create(ctx, bad); err == nil {
		t.Error("a bad group was taken")
	}
	all, err := c.List(ctx)
	if err != nil || len(all) != 2 || all[0].ID != "aaaaaa" || all[1].ID != "abcdef" {
		t.Errorf("list: %v, %v", all, err)
	}
	broken := jointoken.ToSecret(whole())
	broken.Name = "bootstrap-token-broken"
	if err := set.Tracker().Add(broken); err != nil {
		t.Fatal(err)
	}
	if all, err = c.List(ctx); len(all) != 2 || err == nil || !strings.Contains(err.Error(), "bootstrap-token-broken") {
		t.Errorf("with a broken one: %v, %v", all, err)
	}
	if err := c.Delete(ctx, "abcdef"); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, "abcdef"); err == nil || !strings.Contains(err.Error(), `none with id "abcdef"`) {
		t.Errorf("again: got %v", err)
	}
	for _, verb := range []string{"list", "create", "delete"} {
		set.PrependReactor(verb, "secrets", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("down") })
	}
	_, err = c.List(ctx)
	for name, err := range map[string]error{"list": err, "create": c.Create(ctx, whole()), "delete": c.Delete(ctx, "abcdef")} {
		if err == nil || !strings.Contains(err.Error(), "down") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRender(t *testing.T) {
	all := []jointoken.Token{
		whole(),
		{ID: "bbbbbb", Secret: "bbbbbbbbbbbbbbbb", Description: "two\nlines\tand a tab", Expires: at().Add(-time.Hour)},
		{ID: "cccccc", Secret: "cccccccccccccccc", Usages: []string{"signing"}},
	}
	for _, output := range []string{"text", "json"} {
		got, err := jointoken.Render(all, output, at())
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "list."+output, got)
		if shows := strings.Contains(string(got), "0123456789abcdef"); shows != (output == "json") {
			t.Errorf("%s: shows the secret: %v", output, shows)
		}
	}
	if got, err := jointoken.Render(nil, "json", at()); err != nil || string(got) != "[]\n" {
		t.Errorf("none: got %q, %v", got, err)
	}
	if _, err := jointoken.Render(all, "xml", at()); err == nil {
		t.Error("xml: no error")
	}
}

func FuzzFromSecret(f *testing.F) {
	f.Add("abcdef", "0123456789abcdef", "2030-01-02T03:04:05Z", "system:bootstrappers:a", "x")
	f.Add("", "", "", "", "")
	f.Fuzz(func(t *testing.T, id, secret, expiration, groups, description string) {
		s := jointoken.ToSecret(jointoken.Token{ID: id, Secret: token.Secret(secret), Description: description, Usages: jointoken.Usages()})
		s.Data["expiration"], s.Data["auth-extra-groups"] = []byte(expiration), []byte(groups)
		got, err := jointoken.FromSecret(s)
		if err != nil {
			return
		}
		for _, g := range got.Groups {
			if !strings.HasPrefix(g, "system:bootstrappers:") {
				t.Fatalf("group %q", g)
			}
		}
		if len(got.ID) != 6 || len(got.Secret) != 16 {
			t.Fatalf("id %q", got.ID)
		}
		if text, err := jointoken.Render([]jointoken.Token{got}, "text", at()); err != nil || strings.Count(string(text), "\n") != 2 {
			t.Fatalf("rendered %q, %v", text, err)
		}
	})
}
