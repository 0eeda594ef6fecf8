package diagnosis

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crifake "k8s.io/cri-client/pkg/fake"

	"keelson/node/status"
)

func lines(all []status.Trouble) []string {
	var out []string
	for _, t := range all {
		out = append(out, t.Code+" "+t.Subject+" "+t.Message)
	}
	return out
}

func check(t *testing.T, what string, got []status.Trouble, want ...string) {
	t.Helper()
	if have := lines(got); !slices.Equal(have, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func TestRuntime(t *testing.T) {
	endpoint := "unix://" + filepath.Join(t.TempDir(), "cri.sock")
	if got := Runtime(t.Context(), endpoint); len(got) != 1 || got[0].Code != CodeRuntime {
		t.Errorf("nobody there: got %+v", got)
	}
	cri := crifake.NewFakeRemoteRuntime()
	if err := cri.Start(endpoint); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cri.Stop)
	check(t, "all is well", Runtime(t.Context(), endpoint))
	cri.RuntimeService.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"}, {Type: "Other"},
	}}
	check(t, "no network", Runtime(t.Context(), endpoint), "PodNetworkNotReady  NetworkPluginNotReady: cni plugin not initialized")
	cri.RuntimeService.InjectError("Status", errors.New("broken"))
	if got := Runtime(t.Context(), endpoint); len(got) != 1 || got[0].Code != CodeRuntime || !strings.Contains(got[0].Message, "broken") {
		t.Errorf("an error: got %+v", got)
	}
}

func TestNode(t *testing.T) {
	since := metav1.NewTime(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w-1"}}
	condition := func(kind corev1.NodeConditionType, value corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: value, Reason: reason, Message: message, LastTransitionTime: since}
	}
	pod := func(name string, phase corev1.PodPhase, ready corev1.ConditionStatus, waits *corev1.ContainerStateWaiting) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kube-system"}, Spec: corev1.PodSpec{NodeName: "w-1"}, Status: corev1.PodStatus{
			Phase: phase, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, Reason: "ContainersNotReady", Message: "not yet", LastTransitionTime: since}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Waiting: waits}}},
		}}
	}
	client := fake.NewClientset()
	check(t, "not registered", Node(t.Context(), client, "w-1"), "NodeNotRegistered w-1 the cluster has no Node of this name yet")

	node.Status.Conditions = []corev1.NodeCondition{
		condition("Ready", "True", "KubeletReady", ""), condition("MemoryPressure", "False", "", ""), condition("EtcdIsVoter", "True", "", ""), condition("DiskSpaceLow", "True", "", ""),
	}
	client = fake.NewClientset(node, pod("good", corev1.PodRunning, "True", nil), pod("done", corev1.PodSucceeded, "False", nil))
	check(t, "all is well", Node(t.Context(), client, "w-1"))

	node.Status.Conditions = []corev1.NodeCondition{
		condition("Ready", "False", "KubeletNotReady", "cni plugin not initialized"), condition("PIDPressure", "True", "TooMany", ""), condition("EtcdIsVoter", "False", "MemberIsLearner", "not yet"),
	}
	silent := pod("silent", corev1.PodPending, "False", nil)
	silent.Status.Conditions, silent.Status.Message = nil, "no room"
	client = fake.NewClientset(node, silent, pod("flannel", corev1.PodRunning, "False", &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}), pod("slow", corev1.PodRunning, "False", nil))
	got := Node(t.Context(), client, "w-1")
	check(t, "much is wrong", got,
		"NodeNotReady w-1 KubeletNotReady: cni plugin not initialized", "PIDPressure w-1 TooMany", "EtcdNotVoter w-1 MemberIsLearner: not yet",
		"SystemPodNotReady kube-system/flannel container main: CrashLoopBackOff: back-off", "SystemPodNotReady kube-system/silent Pending: no room",
		"SystemPodNotReady kube-system/slow ContainersNotReady: not yet")
	if !got[0].Since.Equal(since.Time) || !got[3].Since.Equal(since.Time) {
		t.Errorf("since when: %+v", got)
	}
	for _, what := range []string{"nodes", "pods"} {
		client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w-1"}})
		client.PrependReactor("*", what, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("refused") })
		check(t, "no answer about "+what, Node(t.Context(), client, "w-1"), "KubernetesNotAnswering  refused")
	}
}

func TestWebhooks(t *testing.T) {
	ignore, fail, yes, no := admissionv1.Ignore, admissionv1.Fail, true, false
	service := func(name string, kind corev1.ServiceType) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "hooks"}, Spec: corev1.ServiceSpec{Type: kind}}
	}
	slice := func(name string, ready ...*bool) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name + "-x", Namespace: "hooks", Labels: map[string]string{discoveryv1.LabelServiceName: name}}}
		for _, r := range ready {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: r}})
		}
		return s
	}
	at := func(name string) admissionv1.WebhookClientConfig {
		return admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "hooks", Name: name}}
	}
	url := "https://192.0.2.1/"
	client := fake.NewClientset(
		service("good", ""), slice("good", &no, &yes), service("unsaid", ""), slice("unsaid", nil), service("empty", ""), slice("empty"),
		service("unready", ""), slice("unready", &no), service("far", corev1.ServiceTypeExternalName),
		&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Webhooks: []admissionv1.ValidatingWebhook{
			{Name: "a", ClientConfig: at("good")}, {Name: "b", ClientConfig: at("unsaid")}, {Name: "c", ClientConfig: at("empty")},
			{Name: "d", ClientConfig: at("unready"), FailurePolicy: &fail}, {Name: "e", ClientConfig: at("gone")}, {Name: "f", ClientConfig: at("gone"), FailurePolicy: &ignore},
			{Name: "g", ClientConfig: at("far")}, {Name: "h", ClientConfig: admissionv1.WebhookClientConfig{URL: &url}},
		}},
		&admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Webhooks: []admissionv1.MutatingWebhook{{Name: "a", ClientConfig: at("gone")}}},
	)
	const end = ", so what this webhook must allow is refused; repair it, or delete the configuration"
	check(t, "webhooks", Webhooks(t.Context(), client),
		"WebhookUnavailable ValidatingWebhookConfiguration/v/c Service hooks/empty has no ready endpoint"+end,
		"WebhookUnavailable ValidatingWebhookConfiguration/v/d Service hooks/unready has no ready endpoint"+end,
		"WebhookUnavailable ValidatingWebhookConfiguration/v/e Service hooks/gone is not there"+end,
		"WebhookUnavailable MutatingWebhookConfiguration/m/a Service hooks/gone is not there"+end)
	check(t, "none", Webhooks(t.Context(), fake.NewClientset()))
	for _, what := range []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations", "services", "endpointslices"} {
		broken := fake.NewClientset(service("good", ""), &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Webhooks: []admissionv1.ValidatingWebhook{{Name: "a", ClientConfig: at("good")}}})
		broken.PrependReactor("*", what, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("refused") })
		if got := Webhooks(t.Context(), broken); len(got) != 1 || got[0].Code != CodeAPI || !strings.HasSuffix(got[0].Message, "refused") {
			t.Errorf("no answer about %s: got %+v", what, got)
		}
	}
}
