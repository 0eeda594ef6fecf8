package networkpolicy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// missed is after how many periods without a beat the controller is taken for stuck.
const missed = 3

// errStuck ends a run whose controller does nothing any more; kubelet starts another.
var errStuck = errors.New("the controller looks at its rules no more")

// Run connects and keeps policies until ctx ends.
func Run(ctx context.Context, o Options) error {
	c, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return Keep(ctx, o, client)
}

// Keep keeps policies by what a cluster says. It logs with klog, as the controller does that it runs.
func Keep(ctx context.Context, o Options, client kubernetes.Interface) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	pods, policies, namespaces := factory.Core().V1().Pods().Informer(), factory.Networking().V1().NetworkPolicies().Informer(), factory.Core().V1().Namespaces().Informer()
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	defer cancel(nil) // before the wait above: informers end with ctx
	if !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced, policies.HasSynced, namespaces.HasSynced) {
		return ended(ctx)
	}
	config := o.config()
	iptables, ipsets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return fmt.Errorf("find iptables and ipset: %w", err)
	}
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &sync.Mutex{}, iptables, ipsets)
	if err != nil {
		return fmt.Errorf("make network policy controller: %w", err)
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, policies: controller.NetworkPolicyEventHandler, namespaces: controller.NamespaceEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("follow the cluster: %w", err)
		}
	}
	beats := make(chan *healthcheck.ControllerHeartbeat)
	var running sync.WaitGroup
	running.Add(1) // the controller's own, which it takes off itself
	go controller.Run(beats, ctx.Done(), &running)
	stopped := make(chan struct{})
	go func() { running.Wait(); close(stopped) }()
	listen(beats, stopped, missed*o.SyncPeriod, func() { cancel(errStuck) })
	return ended(ctx)
}

// listen takes the beats, one at each look at the rules, until the controller has stopped. Without one for that long, stuck
// is called, and a controller that does not stop then either is left alone: the program ends.
func listen[T any](beats <-chan T, stopped <-chan struct{}, limit time.Duration, stuck func()) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for warned := false; ; {
		select {
		case <-stopped:
			return
		case <-beats:
			timer.Reset(limit)
		case <-timer.C:
			if warned {
				return
			}
			warned = true
			stuck()
			timer.Reset(limit)
		}
	}
}

func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// slim forgets what the controller does not look at: every machine has all Pods of the cluster in memory.
func slim(o any) (any, error) {
	if object, err := meta.Accessor(o); err == nil {
		object.SetManagedFields(nil)
		object.SetAnnotations(policyAnnotations(object.GetAnnotations()))
	}
	if pod, ok := o.(*corev1.Pod); ok {
		spec := corev1.PodSpec{NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork}
		for _, c := range pod.Spec.Containers {
			spec.Containers = append(spec.Containers, corev1.Container{Name: c.Name, Ports: c.Ports})
		}
		pod.Spec = spec
		pod.Status = corev1.PodStatus{Phase: pod.Status.Phase, PodIP: pod.Status.PodIP, PodIPs: pod.Status.PodIPs, HostIP: pod.Status.HostIP}
	}
	return o, nil
}

// policyAnnotations are those that upstream reads (netpol/policy.go): those of how much of the dropped is logged.
func policyAnnotations(all map[string]string) map[string]string {
	var kept map[string]string
	for name, value := range all {
		if strings.HasPrefix(name, annotations) {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = value
		}
	}
	return kept
}

const annotations = "kube-router.io/"
