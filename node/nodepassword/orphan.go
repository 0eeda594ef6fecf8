package nodepassword

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson/node/nodeobject"
)

// A Secret without a Node is an orphan once a machine that joins would long have registered (k3s: the same times).
const (
	orphanAge = 10 * time.Minute
	lookEvery = time.Minute
)

// looks is how often a Secret is looked at anew that changed between the look and the deed.
const looks = 3

// Run lets Secrets go with their Nodes until ctx ends: at once when a Node is deleted while it watches, so that a
// machine with an empty disk can take its name, and by looking where nobody watched. A Secret is given its Node as
// owner, which tells it from the next one of that name, and has Kubernetes' garbage collector remove it where no server
// of ours does. Every server runs it; to remove what another has removed is nothing.
func (c *Checker) Run(ctx context.Context) error {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	if client == nil {
		return fmt.Errorf("look after node passwords: %w", ErrNotReady)
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: nodeobject.ListWatch(client, nil),
		ObjectType:    &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if node, ok := o.(*corev1.Node); ok {
				c.nodeGone(ctx, client, node)
			}
		}},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-ended }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	// Until the list of Nodes is whole, every Secret would look like an orphan.
	synced := cache.WaitForCacheSync(ctx.Done(), informer.HasSynced)
	for synced && ctx.Err() == nil {
		c.look(ctx, client, store, time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// nodeGone removes the Secret of a Node that was deleted, but not that of the machine which has taken the name since:
// the word of a deletion can come late.
func (c *Checker) nodeGone(ctx context.Context, client kubernetes.Interface, gone *corev1.Node) {
	c.forget(gone.Name)
	name := strings.ToLower(gone.Name) + suffix
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		err = c.remove(ctx, client, secret, func(s *corev1.Secret) (bool, error) { return belongs(s, gone), nil })
	}
	c.warn(ctx, "node password of a node that is gone stays for now", gone.Name, err)
}

// belongs tells whether a Secret is that of this Node and not of another that has or had its name. One that has no
// owner yet was made before its Node, by the machine that was about to register.
func belongs(secret *corev1.Secret, node *corev1.Node) bool {
	if uid, owned := owner(secret); owned {
		return uid == node.UID
	}
	return !secret.CreationTimestamp.After(node.CreationTimestamp.Time)
}

// owner is the Node that a Secret belongs to.
func owner(secret *corev1.Secret) (types.UID, bool) {
	for _, o := range secret.OwnerReferences {
		if o.Kind == "Node" && o.APIVersion == "v1" {
			return o.UID, true
		}
	}
	return "", false
}

// look goes through all Secrets of the kind: those of a Node get it as their owner, those of none go.
func (c *Checker) look(ctx context.Context, client kubernetes.Interface, nodes cache.Store, now time.Time) {
	all, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(secretType)})
	if err != nil {
		if ctx.Err() == nil {
			c.cfg.Log.Warn("cannot look for node passwords of nodes that are gone", "error", err)
		}
		return
	}
	byName := map[string]string{} // a Node's name by what its Secret is called after
	for _, name := range nodes.ListKeys() {
		byName[strings.ToLower(name)] = name
	}
	for i := range all.Items {
		secret := &all.Items[i]
		lower, ours := strings.CutSuffix(secret.Name, suffix)
		if !ours || secret.Type != secretType {
			continue
		}
		if name, exists := byName[lower]; exists {
			if _, owned := owner(secret); !owned {
				c.warn(ctx, "node password gets no owner yet", name, c.adopt(ctx, client, secret, name))
			}
			continue
		}
		orphan := func(s *corev1.Secret) (bool, error) {
			if now.Sub(s.CreationTimestamp.Time) < orphanAge {
				return false, nil
			}
			// The list may be older than a Node that came just now.
			_, err := client.CoreV1().Nodes().Get(ctx, lower, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return true, nil
			}
			return false, err
		}
		c.warn(ctx, "node password of a node that is gone stays for now", lower, c.remove(ctx, client, secret, orphan))
	}
}

// adopt makes the Node the owner of its Secret. The Node is asked for and not taken from a list: an owner that is gone
// would have the Secret of a machine that joins anew collected.
func (c *Checker) adopt(ctx context.Context, client kubernetes.Interface, secret *corev1.Secret, name string) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	owned := secret.DeepCopy() // with its resource version, so that a Secret made anew meanwhile is left alone
	owned.OwnerReferences = append(owned.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID})
	_, err = client.CoreV1().Secrets(metav1.NamespaceSystem).Update(ctx, owned, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil // another server was faster, or it is another Secret: the next look tells
	}
	return err
}

// remove deletes a Secret if goes says so of it, and no other than the one that it said so of: where it has changed or
// was made anew since, it is looked at again.
func (c *Checker) remove(ctx context.Context, client kubernetes.Interface, secret *corev1.Secret, goes func(*corev1.Secret) (bool, error)) error {
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	for range looks {
		if yes, err := goes(secret); !yes || err != nil {
			return err
		}
		err := secrets.Delete(ctx, secret.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion},
		})
		switch {
		case err == nil:
			c.cfg.Log.Info("node password of a node that is gone is removed", "secret", secret.Name)
			return nil
		case !apierrors.IsConflict(err):
			return err
		}
		if secret, err = secrets.Get(ctx, secret.Name, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	return errors.New("its Secret changes all the time")
}

// warn tells what went wrong; that something has gone already, or that this process ends, is nothing.
func (c *Checker) warn(ctx context.Context, what, node string, err error) {
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		c.cfg.Log.Warn(what, "node", node, "error", err)
	}
}
