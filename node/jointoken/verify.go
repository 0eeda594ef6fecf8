package jointoken

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"keelson/node/token"
)

// Why a bootstrap token is refused. ErrExpired and ErrUsage are for who has shown the right secret; anybody else
// learns nothing but ErrUnknown.
var (
	ErrUnknown = errors.New("bootstrap token is not known")
	ErrExpired = errors.New("bootstrap token has expired")
	ErrUsage   = errors.New("bootstrap token is not for authentication")
)

// Expired is the ErrExpired of one token.
type Expired struct {
	ID string
	At time.Time
}

// Error implements error, for who joins.
func (e *Expired) Error() string {
	return fmt.Sprintf("the bootstrap token %s expired at %s: make a new one with `node token create`", e.ID, e.At.UTC().Format(time.RFC3339))
}

// Is makes it an ErrExpired.
func (e *Expired) Is(target error) bool { return target == ErrExpired }

// User is who has shown a token.
type User struct {
	Name   string
	Groups []string
}

// Getter gives a Secret of kube-system by name; a client or an informer's lister has it. One that is absent is an
// error of k8s.io/apimachinery's NotFound.
type Getter func(ctx context.Context, name string) (*corev1.Secret, error)

// Verifier judges bootstrap tokens, as kube-apiserver does (kubernetes plugin/pkg/auth/authenticator/token/bootstrap).
type Verifier struct {
	Get Getter
	Now func() time.Time // nil: time.Now
}

// Verify finds out whom a token stands for. Errors other than the three above mean that nobody can tell.
func (v Verifier) Verify(ctx context.Context, id string, secret token.Secret) (User, error) {
	// What is no token at all never reaches kube-apiserver: the id becomes a part of a name.
	if gotID, _, err := token.ParseBootstrap(token.Secret(id + "." + secret.Reveal())); err != nil || gotID != id {
		return User{}, ErrUnknown
	}
	s, err := v.Get(ctx, namePrefix+id)
	if apierrors.IsNotFound(err) {
		return User{}, ErrUnknown
	} else if err != nil {
		return User{}, fmt.Errorf("look up bootstrap token %s: %w", id, err)
	}
	if s.DeletionTimestamp != nil {
		return User{}, ErrUnknown
	}
	t, err := FromSecret(s)
	if err != nil || t.ID != id {
		return User{}, ErrUnknown
	}
	if subtle.ConstantTimeCompare([]byte(t.Secret.Reveal()), []byte(secret.Reveal())) != 1 {
		return User{}, ErrUnknown
	}
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	switch {
	case !t.Expires.IsZero() && !now().Before(t.Expires):
		return User{}, &Expired{ID: t.ID, At: t.Expires}
	case !slices.Contains(t.Usages, "authentication"):
		return User{}, ErrUsage
	}
	return User{Name: "system:bootstrap:" + t.ID, Groups: append([]string{"system:bootstrappers"}, t.Groups...)}, nil
}
