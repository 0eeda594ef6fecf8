package reencryption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson/node/encryption"
	"keelson/node/nodeobject"
)

// ErrLagging is a server that has not loaded what the cluster's record says.
var ErrLagging = errors.New("not every server has loaded the cluster's encryption")

// membersAgain is how often etcd's members are looked at, of which there is no watch.
const membersAgain = 2 * time.Second

// lagging names the servers that have not loaded the state of mark, with the reason. A member of etcd whose Node does
// not say so is a server that is on its way in: its kube-apiserver may serve before its Node tells.
func lagging(nodes []*corev1.Node, members []string, mark string) []string {
	var all []string
	for _, n := range nodes {
		if _, ok := n.Labels[nodeobject.LabelControlPlane]; !ok {
			continue
		}
		if has := n.Annotations[Annotation]; has == "" {
			all = append(all, n.Name+" (says nothing)")
		} else if has != mark {
			stage, _, _ := strings.Cut(has, "-")
			all = append(all, n.Name+" (is at another "+stage+")")
		}
	}
	for _, member := range members {
		if !slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return n.Annotations[nodeobject.AnnotationEtcdName] == member }) {
			all = append(all, fmt.Sprintf("etcd member %q (is joining)", member))
		}
	}
	slices.Sort(all)
	return all
}

// await returns when all servers have loaded s.
func (m *Manager) await(ctx context.Context, s encryption.Settings) error {
	ctx, cancel := context.WithTimeout(ctx, m.Deadline)
	defer cancel()
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: nodeobject.ListWatch(m.Nodes, nil),
		ObjectType:    &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
		},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	defer func() { cancel(); <-ended }()
	tick := time.NewTicker(membersAgain)
	defer tick.Stop()
	late := []string{"the cluster's nodes are not known"}
	for {
		if informer.HasSynced() {
			members, err := m.Members(ctx)
			if err != nil {
				late = []string{"etcd's members: " + err.Error()}
			} else if late = lagging(nodesOf(store), members, s.Mark()); len(late) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%s): %s; the step can be asked for again, and a machine that will not come back must have its Node deleted first",
				ErrLagging, s.Stage, strings.Join(late, ", "))
		case <-changed:
		case <-tick.C:
		}
	}
}

func nodesOf(store cache.Store) []*corev1.Node {
	var all []*corev1.Node
	for _, o := range store.List() {
		if n, ok := o.(*corev1.Node); ok {
			all = append(all, n)
		}
	}
	return all
}

// late is a look, once.
func (m *Manager) late(ctx context.Context, s encryption.Settings) ([]string, error) {
	list, err := m.Nodes.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	members, err := m.Members(ctx)
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	var nodes []*corev1.Node
	for i := range list.Items {
		nodes = append(nodes, &list.Items[i])
	}
	return lagging(nodes, members, s.Mark()), nil
}
