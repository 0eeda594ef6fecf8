package kube

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/retry"
)

// Pod is a pod of package workload.
type Pod struct {
	Namespace string
	Name      string
	Image     string
	Args      []string
	Node      string // where it must run; empty: wherever the scheduler wants
	// Host gives the pod the node's processes and all privileges.
	Host bool
}

// Object is the pod as the API takes it. It runs once and gets no service
// account's token.
func (p Pod) Object() *corev1.Pod {
	no := false
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Labels: map[string]string{"app": p.Name}},
		Spec: corev1.PodSpec{
			NodeName: p.Node, RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no,
			TerminationGracePeriodSeconds: seconds(1e9),
			Containers: []corev1.Container{{
				Name: "workload", Image: p.Image, Args: p.Args, ImagePullPolicy: corev1.PullIfNotPresent,
			}},
		},
	}
	if p.Host {
		yes := true
		object.Spec.HostPID = true
		object.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
		object.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	return object
}

// create makes the pod once its namespace has the service account that every
// pod runs as: kube-controller-manager makes it a moment after the namespace.
func (c *Client) create(ctx context.Context, p Pod) error {
	accounts := c.CoreV1().ServiceAccounts(p.Namespace)
	err := until(ctx, c, listWatch(c, accounts.List, accounts.Watch, "default"), &corev1.ServiceAccount{}, func(all []*corev1.ServiceAccount) (bool, string) {
		return len(all) > 0, "the namespace has no service account yet"
	})
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Pods(p.Namespace).Create(ctx, p.Object(), metav1.CreateOptions{})
	return err
}

// RunPod creates the pod, waits for its end and returns what it printed. One
// that fails is an error with its output in it. It is deleted afterwards.
func (c *Client) RunPod(ctx context.Context, p Pod) (output string, err error) {
	if err := c.create(ctx, p); err != nil {
		return "", fmt.Errorf("run pod %s: %w", p.Name, err)
	}
	defer func() {
		gone := context.WithoutCancel(ctx)
		options := metav1.DeleteOptions{GracePeriodSeconds: seconds(0)}
		// What it ran may have had this very kube-apiserver start anew.
		derr := retry.OnError(aMinute(), func(e error) bool { return !apierrors.IsNotFound(e) }, func() error {
			return c.CoreV1().Pods(p.Namespace).Delete(gone, p.Name, options)
		})
		if derr != nil && err == nil {
			err = fmt.Errorf("run pod %s: delete it: %w", p.Name, derr)
		}
	}()
	phase, err := c.podPhase(ctx, p, corev1.PodSucceeded, corev1.PodFailed)
	if err != nil {
		return "", fmt.Errorf("run pod %s: %w", p.Name, err)
	}
	// kube-apiserver asks the kubelet by way of a tunnel, which may be taking a new authority over at this very moment.
	err = retry.OnError(aMinute(), func(error) bool { return ctx.Err() == nil }, func() error {
		output, err = c.Logs(ctx, p.Namespace, p.Name)
		return err
	})
	if err == nil && phase == corev1.PodFailed {
		err = fmt.Errorf("run pod %s: it failed: %s", p.Name, output)
	}
	return output, err
}

// aMinute is how long what a restart or a rotation may disturb is tried again.
func aMinute() wait.Backoff {
	return wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Steps: 11}
}

// RunOnNode runs a program of a node, as its operator would, and returns what it printed. image is package workload's.
func (c *Client) RunOnNode(ctx context.Context, image, node string, command ...string) (string, error) {
	name := "operator-" + node
	output, err := c.RunPod(ctx, Pod{
		Namespace: "kube-system", Name: name, Image: image, Args: append([]string{"on-node"}, command...), Host: true, Node: node,
	})
	if err != nil {
		return output, fmt.Errorf("on node %s: %w", node, err)
	}
	return output, nil
}

// PodRunning creates the pod and waits until it runs.
func (c *Client) PodRunning(ctx context.Context, p Pod) error {
	if err := c.create(ctx, p); err != nil {
		return fmt.Errorf("start pod %s: %w", p.Name, err)
	}
	if _, err := c.podPhase(ctx, p, corev1.PodRunning); err != nil {
		return fmt.Errorf("start pod %s: %w", p.Name, err)
	}
	return nil
}

func (c *Client) podPhase(ctx context.Context, p Pod, want ...corev1.PodPhase) (corev1.PodPhase, error) {
	var phase corev1.PodPhase
	lw := listWatch(c, c.CoreV1().Pods(p.Namespace).List, c.CoreV1().Pods(p.Namespace).Watch, p.Name)
	err := until(ctx, c, lw, &corev1.Pod{}, func(all []*corev1.Pod) (bool, string) {
		if len(all) == 0 {
			return false, "it does not exist"
		}
		phase = all[0].Status.Phase
		for _, w := range want {
			if phase == w {
				return true, ""
			}
		}
		return false, unready(all[0])
	})
	return phase, err
}

// Logs are what a pod's only container printed.
func (c *Client) Logs(ctx context.Context, namespace, name string) (string, error) {
	stream, err := c.CoreV1().Pods(namespace).GetLogs(name, &corev1.PodLogOptions{}).Stream(ctx)
	if err != nil {
		return "", fmt.Errorf("logs of %s: %w", name, err)
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		return "", fmt.Errorf("logs of %s: %w", name, err)
	}
	return string(data), nil
}

// Transport of an exec: what kubectl of today does, and what it did before.
type Transport string

// The two streaming protocols of the API.
const (
	WebSocket Transport = "websocket"
	SPDY      Transport = "spdy"
)

// Exec runs a command in a pod's only container and returns what it printed.
func (c *Client) Exec(ctx context.Context, transport Transport, namespace, name string, command ...string) (string, error) {
	request := c.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	var executor remotecommand.Executor
	var err error
	if transport == WebSocket {
		executor, err = remotecommand.NewWebSocketExecutor(c.config, "GET", request.URL().String())
	} else {
		executor, err = remotecommand.NewSPDYExecutor(c.config, "POST", request.URL())
	}
	if err != nil {
		return "", fmt.Errorf("exec in %s by %s: %w", name, transport, err)
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return stdout.String(), fmt.Errorf("exec in %s by %s: %w: %s", name, transport, err, stderr.String())
	}
	return stdout.String(), nil
}
