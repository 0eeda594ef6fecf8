package jointoken_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"keelson/node/jointoken"
	"keelson/node/token"
)

func TestCleanerRemovesWhatHasLongExpired(t *testing.T) {
	const week = 7 * 24 * time.Hour
	of := func(id string, expires time.Time) *corev1.Secret {
		s := jointoken.ToSecret(jointoken.Token{ID: id, Secret: token.Secret(strings.Repeat("0", 16)), Expires: expires, Usages: jointoken.Usages()})
		s.UID, s.ResourceVersion = "u-"+s.UID, "7"
		return s
	}
	broken := of("broken", at().Add(-2*week))
	broken.Data["token-secret"] = []byte("short")
	foreign := of("foreig", at().Add(-2*week))
	foreign.Type = corev1.SecretTypeOpaque
	client := fake.NewClientset(
		of("holds0", at().Add(time.Hour)), of("ended0", at().Add(-time.Hour)), of("almost", at().Add(-week+time.Second)),
		of("longgo", at().Add(-week)), of("longer", at().Add(-2*week)), of("foreve", time.Time{}), broken, foreign,
	)
	secrets := client.CoreV1().Secrets("kube-system")
	var log bytes.Buffer
	c := jointoken.Cleaner{Secrets: secrets, Log: slog.New(slog.NewTextHandler(&log, nil))}
	c.Clean(t.Context(), at())

	all, err := secrets.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range all.Items {
		got = append(got, strings.TrimPrefix(s.Name, "bootstrap-token-"))
	}
	slices.Sort(got)
	if want := []string{"almost", "broken", "ended0", "foreig", "foreve", "holds0"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	for _, a := range client.Actions() {
		if d, ok := a.(k8stesting.DeleteActionImpl); ok {
			if p := d.DeleteOptions.Preconditions; p == nil || p.UID == nil || p.ResourceVersion == nil || *p.ResourceVersion != "7" {
				t.Errorf("%s is deleted whatever became of it: %+v", d.Name, d.DeleteOptions)
			}
		}
	}
	if text := log.String(); !strings.Contains(text, "id=longgo") || strings.Contains(text, strings.Repeat("0", 16)) {
		t.Errorf("log: %s", text)
	}
}

func TestCleanerTellsWhatItCannotDo(t *testing.T) {
	for _, x := range []struct {
		name, verb string
		err        error
		says       string
	}{
		{"list", "list", errors.New("down"), "down"},
		{"delete", "delete", errors.New("down"), "stays for now"},
		{"another server was faster", "delete", apierrors.NewNotFound(corev1.Resource("secrets"), "x"), ""},
		{"it was given more time", "delete", apierrors.NewConflict(corev1.Resource("secrets"), "x", nil), ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			old := whole()
			old.Expires = at().AddDate(0, -1, 0)
			client := fake.NewClientset(jointoken.ToSecret(old))
			client.PrependReactor(x.verb, "secrets", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, x.err })
			var log bytes.Buffer
			c := jointoken.Cleaner{Secrets: client.CoreV1().Secrets("kube-system"), Log: slog.New(slog.NewTextHandler(&log, nil))}
			c.Clean(t.Context(), at())
			if got := log.String(); (x.says == "") != (got == "") || !strings.Contains(got, x.says) {
				t.Errorf("log: %q, want %q", got, x.says)
			}
		})
	}
}

func TestCleanerLooksAtOnceAndEnds(t *testing.T) {
	old := whole()
	old.Expires = time.Now().AddDate(-1, 0, 0)
	client := fake.NewClientset(jointoken.ToSecret(old))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	removed := false
	client.PrependReactor("delete", "secrets", func(k8stesting.Action) (bool, runtime.Object, error) {
		removed = true
		cancel()
		return false, nil, nil
	})
	c := jointoken.Cleaner{Secrets: client.CoreV1().Secrets("kube-system"), Log: slog.New(slog.DiscardHandler)}
	if err := c.Run(ctx); err != nil || !removed {
		t.Errorf("got %v, removed: %t", err, removed)
	}
}
