package nodepassword

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

func TestSecretsGoWithTheirNodes(t *testing.T) {
	old, fresh := time.Now().Add(-time.Hour), time.Now()
	c, client := checker(t, node("lives"), node("goes"),
		secretOf(t, "lives", "x", old), secretOf(t, "goes", "x", old), secretOf(t, "orphan", "x", old), secretOf(t, "joining", "x", fresh))
	c.Use(client)
	if err := c.Check(t.Context(), "goes", "x", false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	await := func(want ...string) {
		t.Helper()
		deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for {
			list, err := client.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Items) == len(want) {
				for i, s := range list.Items {
					if s.Name != want[i]+suffix {
						t.Fatalf("got %s, want %s", s.Name, want[i]+suffix)
					}
				}
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("got %d Secrets, want those of %v", len(list.Items), want)
			}
		}
	}
	await("goes", "joining", "lives")
	if err := client.CoreV1().Nodes().Delete(ctx, "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await("joining", "lives")
	// The name is free again, for another machine.
	if err := c.Check(ctx, "goes", "another machine's", false); err != nil {
		t.Errorf("a new machine of that name: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// preconditions has the fake do what kube-apiserver does of itself: a deletion of another object than the one that is
// meant conflicts. before runs ahead of each deletion.
func preconditions(t *testing.T, client *fake.Clientset, before func()) {
	t.Helper()
	resource := schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	client.PrependReactor("delete", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		before()
		deletion := a.(clienttesting.DeleteActionImpl)
		want := deletion.DeleteOptions.Preconditions
		if want == nil || want.UID == nil || want.ResourceVersion == nil {
			t.Error("a deletion that any Secret of the name would fit")
			return false, nil, nil
		}
		now, err := client.Tracker().Get(resource, "kube-system", deletion.Name)
		if err != nil {
			return true, nil, err
		}
		if s := now.(*corev1.Secret); s.UID != *want.UID || s.ResourceVersion != *want.ResourceVersion {
			return true, nil, apierrors.NewConflict(resource.GroupResource(), deletion.Name, errors.New("another one"))
		}
		return false, nil, nil
	})
}

// replace puts a Secret of the machine that rejoins in the place of the one that is there.
func replace(t *testing.T, client *fake.Clientset, made time.Time) {
	t.Helper()
	next := secretOf(t, "w", "new", made)
	next.UID, next.ResourceVersion = "2", "20"
	if err := client.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, next, "kube-system"); err != nil {
		t.Error(err)
	}
}

func uidOf(t *testing.T, client *fake.Clientset) types.UID {
	t.Helper()
	s, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "w"+suffix, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.UID
}

// A machine that rejoins between the look and the deletion keeps its new Secret, whoever is late.
func TestRejoinedMeanwhile(t *testing.T) {
	ageless := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name string
		made time.Time // of the Secret that comes meanwhile
		want types.UID
	}{
		{"by a machine that joins now", time.Now(), "2"},
		{"by what is itself an orphan", ageless, ""},
	} {
		t.Run("orphan, "+tt.name, func(t *testing.T) {
			c, client := checker(t, secretOf(t, "w", "old", ageless))
			first := true
			preconditions(t, client, func() {
				if first {
					first = false
					replace(t, client, tt.made)
				}
			})
			c.look(t.Context(), client, cache.NewStore(cache.MetaNamespaceKeyFunc), time.Now())
			if got := uidOf(t, client); got != tt.want {
				t.Errorf("Secret %q is left, want %q", got, tt.want)
			}
		})
	}
	t.Run("Node deleted", func(t *testing.T) {
		gone := node("w")
		gone.CreationTimestamp = metav1.NewTime(ageless.Add(time.Minute))
		c, client := checker(t, secretOf(t, "w", "old", ageless))
		preconditions(t, client, func() { replace(t, client, time.Now()) })
		c.nodeGone(t.Context(), client, gone)
		if got := uidOf(t, client); got != "2" {
			t.Errorf("Secret %q is left, want the new one", got)
		}
	})
	t.Run("it never stays the same", func(t *testing.T) {
		c, client := checker(t, secretOf(t, "w", "old", ageless))
		deletions := 0
		preconditions(t, client, func() {
			deletions++
			next := secretOf(t, "w", "new", ageless)
			next.UID = types.UID(time.Now().String())
			if err := client.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, next, "kube-system"); err != nil {
				t.Error(err)
			}
		})
		c.look(t.Context(), client, cache.NewStore(cache.MetaNamespaceKeyFunc), time.Now())
		if deletions != looks {
			t.Errorf("%d deletions, want %d", deletions, looks)
		}
	})
}

// A Node that the watch has not told of yet is one all the same.
func TestListOlderThanTheNode(t *testing.T) {
	c, client := checker(t, node("w"), secretOf(t, "w", "x", time.Now().Add(-time.Hour)))
	preconditions(t, client, func() {})
	c.look(t.Context(), client, cache.NewStore(cache.MetaNamespaceKeyFunc), time.Now())
	if got := uidOf(t, client); got != "1" {
		t.Errorf("Secret %q is left, want that of the Node", got)
	}
}

// The word of a deletion comes to each server in its own time.
func TestDeletedNodeTakesItsOwnSecretOnly(t *testing.T) {
	began := time.Now().Truncate(time.Second)
	owned := func(uid types.UID) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "w", UID: uid}}
	}
	for _, tt := range []struct {
		name   string
		made   time.Time
		owners []metav1.OwnerReference
		want   types.UID
	}{
		{"made before its Node", began.Add(-time.Second), nil, ""},
		{"made in the second of its Node", began, nil, ""},
		{"made by the next machine of the name", began.Add(time.Second), nil, "1"},
		{"owned by the Node", began.Add(time.Second), owned("node-w"), ""},
		{"owned by the next Node of the name", began.Add(-time.Second), owned("next"), "1"},
		{"owned by what is no Node", began.Add(time.Second), []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", UID: "node-w"}}, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secret := secretOf(t, "w", "x", tt.made)
			secret.OwnerReferences = tt.owners
			c, client := checker(t, secret)
			preconditions(t, client, func() {})
			gone := node("w")
			gone.CreationTimestamp = metav1.NewTime(began)
			c.nodeGone(t.Context(), client, gone)
			if got := uidOf(t, client); got != tt.want {
				t.Errorf("Secret %q is left, want %q", got, tt.want)
			}
		})
	}
}

func TestSecretsGetTheirNodeAsOwner(t *testing.T) {
	listed := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, name := range []string{"w", "left"} {
		if err := listed.Add(node(name)); err != nil {
			t.Fatal(err)
		}
	}
	fresh := time.Now()
	// The Node "left" is gone, and the list does not say so yet: its name is a joining machine's.
	c, client := checker(t, node("w"), secretOf(t, "w", "x", fresh), secretOf(t, "left", "x", fresh))
	for range 2 {
		c.look(t.Context(), client, listed, time.Now())
	}
	for name, want := range map[string][]metav1.OwnerReference{
		"w": {{APIVersion: "v1", Kind: "Node", Name: "w", UID: "node-w"}}, "left": nil,
	} {
		s, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), name+suffix, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.OwnerReferences, want) {
			t.Errorf("%s: got owners %v, want %v", name, s.OwnerReferences, want)
		}
	}
	updates := 0
	for _, a := range client.Actions() {
		if a.Matches("update", "secrets") {
			updates++
		}
	}
	if updates != 1 {
		t.Errorf("%d updates, want 1", updates)
	}
	// What was made anew since the list is not written over.
	c, client = checker(t, node("w"), secretOf(t, "w", "x", fresh))
	fails(client, "update", apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, "w", errors.New("changed")))
	secret, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "w"+suffix, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.adopt(t.Context(), client, secret, "w"); err != nil {
		t.Errorf("a conflict: %v", err)
	}
}
