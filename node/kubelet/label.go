package kubelet

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// Labels reads labels of the form key=value and parts them: own may be given to the kubelet at registration, and
// others must be put on the Node by the supervisor, since neither the kubelet nor the NodeRestriction admission lets
// a kubelet set a label under kubernetes.io or k8s.io save some listed ones (such as node-role.kubernetes.io/...).
func Labels(texts []string) (own, others map[string]string, err error) {
	own, others = map[string]string{}, map[string]string{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, nil, fmt.Errorf("label %q: not of the form key=value", text)
		}
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			return nil, nil, fmt.Errorf("label %q: name: %s", text, strings.Join(problems, "; "))
		}
		if problems := validation.IsValidLabelValue(value); len(problems) > 0 {
			return nil, nil, fmt.Errorf("label %q: value: %s", text, strings.Join(problems, "; "))
		}
		if reserved(key) && !kubeletapis.IsKubeletLabel(key) {
			others[key] = value
			continue
		}
		own[key] = value
	}
	return own, others, nil
}

func reserved(key string) bool {
	namespace, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	for _, domain := range []string{"kubernetes.io", "k8s.io"} {
		if namespace == domain || strings.HasSuffix(namespace, "."+domain) {
			return true
		}
	}
	return false
}
