package staticpod

import (
	"crypto/md5" // names a pod as the kubelet and RKE2 do; nothing is protected by it
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/dump"

	"keelson/node/argument"
)

// The priority class of the control plane and its value (k8s.io/kubernetes pkg/apis/scheduling, SystemCriticalPriority).
// Admission refuses a mirror pod whose value is another one.
const (
	priorityClass = "system-cluster-critical"
	priorityValue = int32(2_000_000_000)
)

// searchPath finds every program of a system image.
const searchPath = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

func (s Server) pod(def definition) (*corev1.Pod, error) {
	image := s.Images[def.name]
	if image == "" {
		return nil, fmt.Errorf("no image is known for it")
	}
	user := s.Components[def.name]
	extra := user.Args
	if def.argsElse {
		extra = nil
	}
	args, err := argument.Merge(def.args, extra)
	if err != nil {
		return nil, err
	}
	volumes, mounts, hash, err := s.volumes(def, args, user.ExtraMount)
	if err != nil {
		return nil, err
	}
	requirements, err := s.requirements(def)
	if err != nil {
		return nil, err
	}
	p := def.probes
	if err := s.time(def.name, &p); err != nil {
		return nil, err
	}
	env, err := s.environment(hash, user.ExtraEnv)
	if err != nil {
		return nil, err
	}
	container := corev1.Container{
		Name:            def.name,
		Image:           image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         []string{def.name},
		Args:            args,
		Env:             env,
		Resources:       requirements,
		VolumeMounts:    mounts,
		StartupProbe:    p.startup,
		LivenessProbe:   p.liveness,
		ReadinessProbe:  p.readiness,
	}
	if def.privileged {
		privileged := true
		container.SecurityContext = &corev1.SecurityContext{Privileged: &privileged}
	}
	priority := priorityValue
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        def.name,
			Namespace:   metav1.NamespaceSystem,
			Labels:      map[string]string{"component": def.name, "tier": "control-plane"},
			Annotations: def.annotations,
		},
		Spec: corev1.PodSpec{
			Containers:        []corev1.Container{container},
			HostNetwork:       true,
			PriorityClassName: priorityClass,
			Priority:          &priority,
			Volumes:           volumes,
		},
	}, nil
}

func (s Server) environment(hash string, extra []string) ([]corev1.EnvVar, error) {
	env := []corev1.EnvVar{{Name: "FILE_HASH", Value: hash}, {Name: "PATH", Value: searchPath}}
	add := func(list []string) error {
		for _, entry := range list {
			name, value, ok := strings.Cut(entry, "=")
			if !ok || name == "" {
				return fmt.Errorf("environment variable %q: not of the form NAME=value", entry)
			}
			i := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == name })
			if i < 0 {
				env = append(env, corev1.EnvVar{Name: name, Value: value})
				continue
			}
			env[i].Value = value
		}
		return nil
	}
	proxies := slices.Clone(s.ProxyEnv)
	slices.Sort(proxies)
	if err := add(proxies); err != nil {
		return nil, err
	}
	return env, add(extra)
}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(cpu),
		corev1.ResourceMemory: resource.MustParse(memory),
	}
}

// requirements lays the user's requests and limits over the component's own.
func (s Server) requirements(def definition) (corev1.ResourceRequirements, error) {
	out := corev1.ResourceRequirements{Requests: def.requests.DeepCopy()}
	overlay := func(what string, from map[string]string, to *corev1.ResourceList) error {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			key := def.name + "-" + string(name)
			text, ok := from[key]
			if !ok {
				continue
			}
			quantity, err := resource.ParseQuantity(text)
			if err != nil {
				return fmt.Errorf("resource %s %s=%s: %w; write a quantity such as 500m or 1Gi", what, key, text, err)
			}
			if *to == nil {
				*to = corev1.ResourceList{}
			}
			(*to)[name] = quantity
		}
		return nil
	}
	if err := overlay("request", s.Requests, &out.Requests); err != nil {
		return out, err
	}
	return out, overlay("limit", s.Limits, &out.Limits)
}

// uid gives the pod a name that is stable and changes with its content, made as the kubelet makes one for a pod that
// comes from a file (k8s.io/kubernetes pkg/kubelet/config/common.go), so that our sandboxes can be told from others'.
// The kubelet takes a UID that is in the manifest as it is.
func uid(pod *corev1.Pod, manifest string) string {
	hasher := md5.New()
	fmt.Fprintf(hasher, "%v", dump.ForHash(pod))
	fmt.Fprintf(hasher, "file:%s", manifest)
	return hex.EncodeToString(hasher.Sum(nil))
}
