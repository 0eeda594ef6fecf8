// Package diagnosis looks for what keeps a node from being well outside of its supervisor: a container runtime without
// network, a Node that is not Ready, system pods that do not start, admission webhooks that nobody answers for. Each is a
// trouble with a code in `node status -o json`, beside those that the supervisor knows of itself (node/status).
//
// It asks only when somebody asks for the status, changes nothing, and what does not answer is a trouble too, never an
// error. node/server and node/agent add it to their reports.
package diagnosis

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"keelson/node/status"
)

// Codes of troubles, which keep their meaning. Pressures of the Node have the names of their conditions.
const (
	CodeRuntime       = "ContainerRuntimeNotReady"
	CodeNetwork       = "PodNetworkNotReady" // no CNI configuration, or one that does not work
	CodeAPI           = "KubernetesNotAnswering"
	CodeNode          = "NodeNotReady"
	CodeNotRegistered = "NodeNotRegistered"
	CodeVoter         = "EtcdNotVoter"
	CodePod           = "SystemPodNotReady"  // subject: the pod
	CodeWebhook       = "WebhookUnavailable" // subject: kind/configuration/webhook
)

// askWithin bounds each question. A report has three seconds in all.
const askWithin = time.Second

// Runtime asks the container runtime for its conditions: it says what is wrong with the CNI whether or not there is a
// cluster.
func Runtime(ctx context.Context, endpoint string) []status.Trouble {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	runtime, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(askWithin).Build(ctx)
	if err != nil {
		return []status.Trouble{{Code: CodeRuntime, Message: err.Error()}}
	}
	defer runtime.Close(ctx)
	answer, err := runtime.Status(ctx, false)
	if err != nil {
		return []status.Trouble{{Code: CodeRuntime, Message: err.Error()}}
	}
	var all []status.Trouble
	for _, c := range answer.GetStatus().GetConditions() {
		code := map[string]string{runtimeapi.RuntimeReady: CodeRuntime, runtimeapi.NetworkReady: CodeNetwork}[c.GetType()]
		if !c.GetStatus() && code != "" {
			all = append(all, status.Trouble{Code: code, Message: join(c.GetReason(), c.GetMessage())})
		}
	}
	return all
}

// Node looks at this machine's Node and at the system pods on it, with rights that a kubelet has.
func Node(ctx context.Context, client kubernetes.Interface, name string) []status.Trouble {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return []status.Trouble{{Code: CodeNotRegistered, Subject: name, Message: "the cluster has no Node of this name yet"}}
	case err != nil:
		return []status.Trouble{{Code: CodeAPI, Message: err.Error()}}
	}
	all := conditions(node)
	pods, err := client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", name).String()})
	if err != nil {
		return append(all, status.Trouble{Code: CodeAPI, Message: err.Error()})
	}
	for _, pod := range pods.Items {
		if t, bad := unready(pod); bad {
			all = append(all, t)
		}
	}
	return all
}

func conditions(node *corev1.Node) []status.Trouble {
	var all []status.Trouble
	for _, c := range node.Status.Conditions {
		code := ""
		switch c.Type {
		case corev1.NodeReady:
			if c.Status != corev1.ConditionTrue {
				code = CodeNode
			}
		case "EtcdIsVoter": // node/member
			if c.Status == corev1.ConditionFalse {
				code = CodeVoter
			}
		case corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeNetworkUnavailable:
			if c.Status == corev1.ConditionTrue {
				code = string(c.Type)
			}
		}
		if code != "" {
			all = append(all, status.Trouble{Code: code, Subject: node.Name, Message: join(c.Reason, c.Message), Since: c.LastTransitionTime.UTC()})
		}
	}
	return all
}

// unready says why a pod is not Ready, in the words of the container that waits.
func unready(pod corev1.Pod) (status.Trouble, bool) {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	if pod.Status.Phase == corev1.PodSucceeded || i >= 0 && pod.Status.Conditions[i].Status == corev1.ConditionTrue {
		return status.Trouble{}, false
	}
	t := status.Trouble{Code: CodePod, Subject: pod.Namespace + "/" + pod.Name, Message: join(string(pod.Status.Phase), pod.Status.Message)}
	if i >= 0 {
		t.Message, t.Since = join(pod.Status.Conditions[i].Reason, pod.Status.Conditions[i].Message), pod.Status.Conditions[i].LastTransitionTime.UTC()
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			t.Message = fmt.Sprintf("container %s: %s", c.Name, join(w.Reason, w.Message))
			break
		}
	}
	return t, true
}

func join(reason, message string) string {
	if reason == "" || message == "" {
		return reason + message
	}
	return reason + ": " + message
}
