package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"keelson/node/kubelet"
	"keelson/node/mirror"
	"keelson/node/nodeobject"
	"keelson/node/staticpod"
	"keelson/node/trust"
)

// askTimeout is how long one question to kube-apiserver may take. The load balancer holds it while no server answers.
const askTimeout = 10 * time.Second

// checkVersion holds this machine's Kubernetes, which is that of its system images, against the cluster's.
func (a *Agent) checkVersion(ctx context.Context) error {
	reference, err := a.images.Reference(staticpod.KubeProxy)
	if err != nil {
		return err
	}
	own := reference[strings.LastIndex(reference, ":")+1:]
	if _, err := version.ParseSemantic(own); err != nil {
		return fmt.Errorf("version of the system image %s: %w", reference, err)
	}
	client, err := a.kubernetes(controllerConfig)
	if err != nil {
		return err
	}
	return a.persist(ctx, "kube-apiserver", func(ctx context.Context) error {
		content, err := client.Discovery().RESTClient().Get().AbsPath("/version").Timeout(askTimeout).DoRaw(ctx)
		if err != nil {
			return marked{fmt.Errorf("ask for its version: %w", err), errPassing}
		}
		var cluster struct{ GitVersion string }
		if err := json.Unmarshal(content, &cluster); err != nil {
			return fmt.Errorf("read its version: %w", err)
		}
		return trust.AgentVersion(cluster.GitVersion, own)
	})
}

func (a *Agent) startKubelet(ctx context.Context) (err error) {
	a.kubelet, err = a.worker.StartKubelet(ctx, a.settings)
	return err
}

func (a *Agent) writeProxy(context.Context) error {
	changed, err := a.worker.ProxyPod(a.settings)
	if err == nil {
		a.log.Info("static pod", "component", staticpod.KubeProxy, "changed", changed)
	}
	return err
}

// markNode puts RKE2's annotations and the labels of the settings on the Node, with the kubelet's own rights. Labels
// that those do not cover (another node's role, say) are an administrator's to set.
func (a *Agent) markNode(ctx context.Context) error {
	own, _, err := kubelet.Labels(a.settings.NodeLabels)
	if err != nil {
		return err
	}
	if others := slices.Sorted(maps.Keys(a.kubelet.Others)); len(others) > 0 {
		a.console("node-label: a node may not give itself " + strings.Join(others, ", ") + "; an administrator may: kubectl label node " + a.settings.NodeName + " ...")
	}
	marks := nodeobject.Marks{Labels: own, Annotations: map[string]string{
		nodeobject.AnnotationHostname: a.settings.NodeName,
		nodeobject.AnnotationInternal: texts(a.settings.NodeIP),
	}}
	mirror.Mark(&marks, a.settings.EmbeddedRegistry)
	if a.firstUsed != "" {
		marks.Annotations[nodeobject.AnnotationFirstUse] = a.firstUsed
	}
	if external := texts(a.settings.NodeExternalIP); external != "" {
		marks.Annotations[nodeobject.AnnotationExternal] = external
	}
	client, err := a.kubernetes(kubeletConfig)
	if err != nil {
		return err
	}
	return a.persist(ctx, "the node's object", func(ctx context.Context) error {
		if err := nodeobject.Ensure(ctx, client, a.settings.NodeName, marks); err != nil {
			return marked{err, errPassing}
		}
		return nil
	})
}

func (a *Agent) awaitNode(ctx context.Context) error {
	client, err := a.kubernetes(kubeletConfig)
	if err != nil {
		return err
	}
	err = a.persist(ctx, "the node's readiness", func(ctx context.Context) error {
		if err := nodeobject.WaitReady(ctx, client, a.settings.NodeName); err != nil {
			return marked{err, errPassing}
		}
		return nil
	})
	if err == nil {
		a.milestone("node Ready")
	}
	return err
}

// How often the cluster is asked for its authorities, which may change while certificates still hold, and how soon again
// after it did not answer.
const (
	lookEvery = 10 * time.Minute
	lookAgain = time.Minute
)

// startRenewal keeps authorities and certificates current. The kubelet reads its certificates and authorities anew by
// itself (k8s.io/client-go transport, ReloadTLSFiles and ClientsAllowCARotation; features
// ReloadKubeletServerCertificateFile and ReloadKubeletClientCAFile), and so does every connection of this program.
// kube-proxy sees single files mounted, of which the old ones stay; its pod is made anew.
func (a *Agent) startRenewal(context.Context) error {
	a.background("renewal", func(ctx context.Context) error {
		said := ""
		for {
			pause, err := a.renew(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("certificates cannot be renewed", "error", err)
				// The console hears of it where it begins to matter.
				if text := err.Error(); text != said && a.isDue() {
					said = text
					a.console("certificates are due and cannot be renewed: " + text)
				}
			}
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
		}
	})
	return nil
}

// renew looks once and tells when to look again.
func (a *Agent) renew(ctx context.Context) (time.Duration, error) {
	now := a.now()
	written, due, err := a.refresh(ctx, now, false)
	if err != nil {
		return lookAgain, err
	}
	if len(written) > 0 {
		a.log.Info("certificates renewed", "written", written, "due", due)
		if err := a.registry.install(); err != nil {
			return lookAgain, err
		}
		if err := a.writeProxy(ctx); err != nil {
			return lookAgain, err
		}
	}
	return max(min(due.Sub(now), lookEvery), lookAgain), nil
}

// isDue tells whether the kubelet's own certificate should have been renewed by now.
func (a *Agent) isDue() bool {
	cert, err := a.show()
	return err != nil || cert.Leaf == nil || !a.now().Before(dueAt(cert.Leaf))
}

func texts[T fmt.Stringer](all []T) string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return strings.Join(out, ",")
}
