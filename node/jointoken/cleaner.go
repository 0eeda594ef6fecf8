package jointoken

import (
	"context"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// An expired token is kept for as long as somebody may come back to a machine that shows it.
const (
	keepExpired = 7 * 24 * time.Hour
	cleanEvery  = time.Hour
)

// Cleaner removes tokens that have long expired. kube-controller-manager's tokencleaner would do it in the moment of
// their end, and then nobody could tell a machine more than that its token is not known.
type Cleaner struct {
	Secrets corev1client.SecretInterface // of kube-system
	Log     *slog.Logger
}

// Run looks every hour until ctx ends. Every server runs it; to remove what another has removed is nothing.
func (c Cleaner) Run(ctx context.Context) error {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		c.Clean(ctx, time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// Clean removes the tokens that had expired keepExpired before now. A failure is told; the next hour is as good.
func (c Cleaner) Clean(ctx context.Context, now time.Time) {
	all, err := c.Secrets.List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(secretType)})
	if err != nil {
		if ctx.Err() == nil {
			c.Log.Warn("cannot look for bootstrap tokens that have expired", "error", err)
		}
		return
	}
	for i := range all.Items {
		s := &all.Items[i]
		t, err := FromSecret(s)
		if err != nil || t.Expires.IsZero() || now.Before(t.Expires.Add(keepExpired)) {
			continue
		}
		// Somebody may have given it more time meanwhile.
		same := metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}
		err = c.Secrets.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &same})
		switch {
		case err == nil:
			c.Log.Info("bootstrap token that expired is removed", "id", t.ID, "expired", t.Expires)
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil:
			c.Log.Warn("bootstrap token that expired stays for now", "id", t.ID, "error", err)
		}
	}
}
