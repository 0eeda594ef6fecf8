package jointoken_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
	"k8s.io/kubernetes/plugin/pkg/auth/authenticator/token/bootstrap"

	"keelson/node/jointoken"
	"keelson/node/token"
)

// TestKubernetesAgrees: the authenticator of kube-apiserver judges Secrets as Verifier does, those that we write and
// those that others do.
func TestKubernetesAgrees(t *testing.T) {
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	base := func() jointoken.Token {
		return jointoken.Token{ID: "abcdef", Secret: "0123456789abcdef", Expires: soon, Usages: jointoken.Usages(), Groups: []string{jointoken.DefaultGroup}}
	}
	for _, c := range []struct {
		name   string
		token  func(*jointoken.Token)
		secret func(*corev1.Secret)
		id     string
		shown  string
		want   bool
	}{
		{name: "as made", want: true},
		{name: "no end", token: func(t *jointoken.Token) { t.Expires = time.Time{} }, want: true},
		{name: "no groups", token: func(t *jointoken.Token) { t.Groups = nil }, want: true},
		{name: "two groups", token: func(t *jointoken.Token) { t.Groups = []string{"system:bootstrappers:z", "system:bootstrappers:a"} }, want: true},
		{name: "over", token: func(t *jointoken.Token) { t.Expires = past }},
		{name: "an end in words", secret: func(s *corev1.Secret) { s.Data[bootstrapapi.BootstrapTokenExpirationKey] = []byte("soon") }},
		{name: "not for authentication", token: func(t *jointoken.Token) { t.Usages = []string{"signing"} }},
		{name: "usage written otherwise", secret: func(s *corev1.Secret) { s.Data[bootstrapapi.BootstrapTokenUsageAuthentication] = []byte("yes") }},
		{name: "wrong secret", shown: "0123456789abcdee"},
		{name: "wrong id", id: "zzzzzz"},
		{name: "another type", secret: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }},
		{name: "being deleted", secret: func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: past} }},
		{name: "id that does not fit the name", secret: func(s *corev1.Secret) { s.Data[bootstrapapi.BootstrapTokenIDKey] = []byte("bbbbbb") }},
		{name: "a group of masters", secret: func(s *corev1.Secret) { s.Data[bootstrapapi.BootstrapTokenExtraGroupsKey] = []byte("system:masters") }},
		{name: "no secret inside", secret: func(s *corev1.Secret) { delete(s.Data, bootstrapapi.BootstrapTokenSecretKey) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok := base()
			if c.token != nil {
				c.token(&tok)
			}
			s := jointoken.ToSecret(tok)
			if s.Name != bootstraputil.BootstrapTokenSecretName(tok.ID) || s.Type != bootstrapapi.SecretTypeBootstrapToken {
				t.Errorf("secret %s of type %s", s.Name, s.Type)
			}
			if c.secret != nil {
				c.secret(s)
			}
			id, shown := "abcdef", "0123456789abcdef"
			if c.id != "" {
				id = c.id
			}
			if c.shown != "" {
				shown = c.shown
			}
			indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
			if err := indexer.Add(s); err != nil {
				t.Fatal(err)
			}
			lister := corev1listers.NewSecretLister(indexer).Secrets("kube-system")
			theirs, ok, err := bootstrap.NewTokenAuthenticator(lister).AuthenticateToken(t.Context(), id+"."+shown)
			if ok != c.want {
				t.Fatalf("kubernetes says %v, %v", ok, err)
			}
			ours, err := jointoken.Verifier{Get: func(_ context.Context, name string) (*corev1.Secret, error) { return lister.Get(name) }}.Verify(t.Context(), id, token.Secret(shown))
			if (err == nil) != c.want {
				t.Fatalf("we say %v, %v", ours, err)
			}
			if err != nil {
				return
			}
			slices.Sort(ours.Groups)
			want := slices.Sorted(slices.Values(theirs.User.GetGroups()))
			if ours.Name != theirs.User.GetName() || !slices.Equal(ours.Groups, want) {
				t.Errorf("got %v; kubernetes has %s %v", ours, theirs.User.GetName(), want)
			}
		})
	}
}

// TestStrangersNeverReachTheCluster with something that is no token.
func TestStrangersNeverReachTheCluster(t *testing.T) {
	asked := 0
	v := jointoken.Verifier{Get: func(_ context.Context, name string) (*corev1.Secret, error) {
		asked++
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}}
	for _, c := range [][2]string{{"", ""}, {"abcdef", ""}, {"ABCDEF", "0123456789abcdef"}, {"abcde/", "0123456789abcdef"}, {"abcdef", "0123456789abcde\n"}, {"K10::abcdef", "0123456789abcdef"}} {
		if _, err := v.Verify(t.Context(), c[0], token.Secret(c[1])); !errors.Is(err, jointoken.ErrUnknown) {
			t.Errorf("%q: got %v", c, err)
		}
	}
	if asked != 0 {
		t.Errorf("the cluster was asked %d times", asked)
	}
	if _, err := v.Verify(t.Context(), "abcdef", "0123456789abcdef"); !errors.Is(err, jointoken.ErrUnknown) || asked != 1 {
		t.Errorf("got %v, asked %d times", err, asked)
	}
}
