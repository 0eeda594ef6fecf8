package diagnosis

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson/node/status"
)

// hook is a webhook of either kind.
type hook struct {
	subject string
	policy  *admissionv1.FailurePolicyType
	service *admissionv1.ServiceReference
}

// Webhooks finds those that must allow requests and that nobody answers for: every request that they are asked about is
// refused. Whether an address outside of the cluster answers is not asked.
func Webhooks(ctx context.Context, client kubernetes.Interface) []status.Trouble {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	hooks, err := hooks(ctx, client)
	if err != nil {
		return []status.Trouble{{Code: CodeAPI, Message: err.Error()}}
	}
	var all []status.Trouble
	known := map[string]string{} // what is wrong with a service
	for _, h := range hooks {
		if h.service == nil || h.policy != nil && *h.policy == admissionv1.Ignore {
			continue
		}
		name := h.service.Namespace + "/" + h.service.Name
		wrong, asked := known[name]
		if !asked {
			if wrong, err = service(ctx, client, h.service.Namespace, h.service.Name); err != nil {
				return append(all, status.Trouble{Code: CodeAPI, Message: err.Error()})
			}
			known[name] = wrong
		}
		if wrong != "" {
			all = append(all, status.Trouble{Code: CodeWebhook, Subject: h.subject, Message: fmt.Sprintf(
				"Service %s %s, so what this webhook must allow is refused; repair it, or delete the configuration", name, wrong)})
		}
	}
	return all
}

func hooks(ctx context.Context, client kubernetes.Interface) ([]hook, error) {
	var all []hook
	validating, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	for _, c := range validating.Items {
		for _, w := range c.Webhooks {
			all = append(all, hook{"ValidatingWebhookConfiguration/" + c.Name + "/" + w.Name, w.FailurePolicy, w.ClientConfig.Service})
		}
	}
	mutating, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	for _, c := range mutating.Items {
		for _, w := range c.Webhooks {
			all = append(all, hook{"MutatingWebhookConfiguration/" + c.Name + "/" + w.Name, w.FailurePolicy, w.ClientConfig.Service})
		}
	}
	return all, nil
}

// service says what is wrong with a Service; empty: somebody is ready to answer, or that cannot be told.
func service(ctx context.Context, client kubernetes.Interface, namespace, name string) (string, error) {
	have, err := client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "is not there", nil
	} else if err != nil {
		return "", fmt.Errorf("look at Service %s/%s: %w", namespace, name, err)
	}
	if have.Spec.Type == corev1.ServiceTypeExternalName {
		return "", nil
	}
	found, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
	if err != nil {
		return "", fmt.Errorf("look at Service %s/%s: %w", namespace, name, err)
	}
	for _, s := range found.Items {
		if slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) {
			return "", nil
		}
	}
	return "has no ready endpoint", nil
}
