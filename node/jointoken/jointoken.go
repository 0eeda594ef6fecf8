// Package jointoken is bootstrap tokens: short-lived tokens that agents join with. Each is a Secret in kube-system, in
// kubeadm's form, so that kubectl, kubeadm and RKE2 read it (spec 1.5; k8s.io/cluster-bootstrap token/api). It stays for
// some days after it has expired, opening nothing, so that who still shows it is told so (Cleaner).
//
// It never talks to the listener that takes the tokens, and tells strangers nothing about those that exist.
// node/command makes, lists and deletes them; supervisorapi's BootstrapToken hook asks Verifier.
package jointoken

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/token"
)

// DefaultGroup is the group that RKE2 gives to who joins with a bootstrap token.
const DefaultGroup = "system:bootstrappers:rke2:default-node-token"

// DefaultTTL is how long a token holds (k3s: the same).
const DefaultTTL = 24 * time.Hour

// Names of Secrets, and of what is in them (k8s.io/cluster-bootstrap token/api).
const (
	namePrefix     = "bootstrap-token-"
	secretType     = corev1.SecretType("bootstrap.kubernetes.io/token")
	keyID          = "token-id"
	keySecret      = "token-secret"
	keyExpiration  = "expiration"
	keyDescription = "description"
	keyGroups      = "auth-extra-groups"
	usagePrefix    = "usage-bootstrap-"
	groupPrefix    = "system:bootstrappers:"
)

// Token is a bootstrap token.
type Token struct {
	ID          string
	Secret      token.Secret
	Description string
	Expires     time.Time // zero: never
	Usages      []string  // authentication, signing
	Groups      []string
}

// Usages are what a token can be for, all of which is the default.
func Usages() []string { return []string{"authentication", "signing"} }

// Check finds what kube-apiserver would store and nobody could use.
func (t Token) Check() error {
	if err := t.grammar(); err != nil {
		return err
	}
	if len(t.Groups) > 0 && !slices.Contains(t.Usages, "authentication") {
		return errors.New("bootstrap token: groups need the usage authentication")
	}
	return nil
}

func (t Token) grammar() error {
	if id, secret, err := token.ParseBootstrap(token.Secret(t.ID + "." + t.Secret.Reveal())); err != nil || id != t.ID || secret != t.Secret {
		return fmt.Errorf("bootstrap token: %w: it has 6 characters, a dot and 16 characters, of a-z and 0-9", token.ErrFormat)
	}
	for _, u := range t.Usages {
		if !slices.Contains(Usages(), u) {
			return fmt.Errorf("bootstrap token: usage %q is not one of %s", u, strings.Join(Usages(), ", "))
		}
	}
	for _, g := range t.Groups {
		if !validGroup(g) {
			return fmt.Errorf("bootstrap token: group %q does not begin with %s followed by a-z, 0-9, colons and dashes", g, groupPrefix)
		}
	}
	return nil
}

// validGroup is kube-apiserver's rule (k8s.io/cluster-bootstrap token/api BootstrapGroupPattern).
func validGroup(g string) bool {
	return regexp.MustCompile(`\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`).MatchString(g)
}

// ToSecret writes the Secret of a token.
func ToSecret(t Token) *corev1.Secret {
	data := map[string][]byte{keyID: []byte(t.ID), keySecret: []byte(t.Secret.Reveal())}
	if t.Description != "" {
		data[keyDescription] = []byte(t.Description)
	}
	if !t.Expires.IsZero() {
		data[keyExpiration] = []byte(t.Expires.UTC().Format(time.RFC3339))
	}
	for _, u := range t.Usages {
		data[usagePrefix+u] = []byte("true")
	}
	if len(t.Groups) > 0 {
		groups := slices.Clone(t.Groups)
		slices.Sort(groups)
		data[keyGroups] = []byte(strings.Join(slices.Compact(groups), ","))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: namePrefix + t.ID, Namespace: metav1.NamespaceSystem},
		Type:       secretType,
		Data:       data,
	}
}

// FromSecret reads a Secret that anybody may have written. Errors name the Secret and never what is in it.
func FromSecret(s *corev1.Secret) (Token, error) {
	bad := func(what string) (Token, error) {
		return Token{}, fmt.Errorf("secret %s/%s is no bootstrap token: %s", s.Namespace, s.Name, what)
	}
	if s.Type != secretType {
		return bad("its type is not " + string(secretType))
	}
	t := Token{ID: string(s.Data[keyID]), Secret: token.Secret(s.Data[keySecret]), Description: string(s.Data[keyDescription])}
	if s.Name != namePrefix+t.ID {
		return bad("its name does not go with " + keyID)
	}
	if text := string(s.Data[keyExpiration]); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return bad(keyExpiration + " is not a time of RFC 3339")
		}
		t.Expires = at
	}
	for _, u := range Usages() {
		if string(s.Data[usagePrefix+u]) == "true" {
			t.Usages = append(t.Usages, u)
		}
	}
	if text := string(s.Data[keyGroups]); text != "" {
		t.Groups = strings.Split(text, ",")
	}
	if err := t.grammar(); err != nil {
		return bad(err.Error())
	}
	return t, nil
}
