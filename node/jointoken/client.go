package jointoken

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Client makes and removes tokens. Secrets must be of kube-system.
type Client struct{ Secrets corev1client.SecretInterface }

// Getter asks kube-apiserver each time.
func (c Client) Getter() Getter {
	return func(ctx context.Context, name string) (*corev1.Secret, error) {
		return c.Secrets.Get(ctx, name, metav1.GetOptions{})
	}
}

// Create makes a token; one with the same id must not exist.
func (c Client) Create(ctx context.Context, t Token) error {
	if err := t.Check(); err != nil {
		return err
	}
	_, err := c.Secrets.Create(ctx, ToSecret(t), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create bootstrap token: a token with id %q already exists; delete it, or choose another", t.ID)
	}
	if err != nil {
		return fmt.Errorf("create bootstrap token: %w", err)
	}
	return nil
}

// List gives all tokens by id, and beside them what is wrong with Secrets that are none.
func (c Client) List(ctx context.Context) ([]Token, error) {
	list, err := c.Secrets.List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(secretType)})
	if err != nil {
		return nil, fmt.Errorf("list bootstrap tokens: %w", err)
	}
	var all []Token
	var broken []error
	for i := range list.Items {
		t, err := FromSecret(&list.Items[i])
		if err != nil {
			broken = append(broken, err)
			continue
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Token) int { return strings.Compare(a.ID, b.ID) })
	return all, errors.Join(broken...)
}

// Delete removes a token.
func (c Client) Delete(ctx context.Context, id string) error {
	err := c.Secrets.Delete(ctx, namePrefix+id, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("delete bootstrap token: there is none with id %q", id)
	}
	if err != nil {
		return fmt.Errorf("delete bootstrap token %s: %w", id, err)
	}
	return nil
}
