// Package systempods tells when the pods of kube-system are up: every one of them Running and Ready, and none of the
// wanted ones missing. It only watches. node/server prints a milestone from it.
package systempods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// WaitReady returns once every pod of kube-system is Ready and each of wanted begins the name of one at least. When
// ctx ends first, the error names what was not there yet.
func WaitReady(ctx context.Context, client kubernetes.Interface, wanted []string) error {
	pods := client.CoreV1().Pods(metav1.NamespaceSystem)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, o)
		},
	}
	ready := map[string]bool{}
	_, err := watchtools.UntilWithSync(ctx, cache.ToListWatcherWithWatchListSemantics(lw, client), &corev1.Pod{}, nil, func(event watch.Event) (bool, error) {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return false, nil
		}
		if event.Type == watch.Deleted {
			delete(ready, pod.Name)
		} else {
			ready[pod.Name] = isReady(pod)
		}
		return len(missing(ready, wanted)) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("await system pods, not ready: %s: %w", strings.Join(missing(ready, wanted), ", "),
			errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// missing lists the pods that are not ready and the wanted ones that no pod stands for, sorted.
func missing(ready map[string]bool, wanted []string) []string {
	var out []string
	for name, ok := range ready {
		if !ok {
			out = append(out, name)
		}
	}
	for _, prefix := range wanted {
		found := false
		for name := range ready {
			found = found || strings.HasPrefix(name, prefix)
		}
		if !found {
			out = append(out, prefix)
		}
	}
	slices.Sort(out)
	return out
}

// isReady also takes a finished pod for done: a Job's pod never becomes Ready.
func isReady(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
