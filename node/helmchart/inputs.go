package helmchart

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson/node/chartsource"
	"keelson/node/release"
)

func secrets() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("secrets")
}
func configMaps() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("configmaps")
}

// referencesOf lists whose change makes another release: Secrets with values, but those that say otherwise. What a chart is
// fetched with changes nothing about it, but may be what it waited for.
func referencesOf(chart *helmv1.HelmChart, config *helmv1.HelmChartConfig) map[reference]bool {
	all := map[reference]bool{}
	add := func(resource, name string) {
		if name != "" {
			all[reference{resource, chart.Namespace, name}] = true
		}
	}
	specs := chart.Spec.ValuesSecrets
	if config != nil {
		specs = slices.Concat(specs, config.Spec.ValuesSecrets)
	}
	for _, s := range specs {
		if !s.IgnoreUpdates && len(s.Keys) > 0 {
			add("secrets", s.Name)
		}
	}
	for _, s := range []*corev1.LocalObjectReference{chart.Spec.AuthSecret, chart.Spec.DockerRegistrySecret} {
		if s != nil {
			add("secrets", s.Name)
		}
	}
	if chart.Spec.RepoCAConfigMap != nil {
		add("configmaps", chart.Spec.RepoCAConfigMap.Name)
	}
	return all
}

// request is where a chart comes from, with what its place wants to see.
func (r *run) request(ctx context.Context, chart *helmv1.HelmChart) (chartsource.Request, error) {
	s := chart.Spec
	request := chartsource.Request{
		Chart: s.Chart, Version: s.Version, Repo: s.Repo, Content: s.ChartContent, CA: []byte(s.RepoCA),
		PassCredentials: s.AuthPassCredentials, SkipVerify: s.InsecureSkipTLSVerify, PlainHTTP: s.PlainHTTP,
	}
	if s.ChartContent != "" {
		return request, nil // which comes from nowhere else
	}
	if ref := s.AuthSecret; ref != nil && ref.Name != "" {
		secret, err := r.secret(ctx, chart.Namespace, ref.Name, "spec.authSecret")
		if err != nil {
			return request, err
		}
		request.Username, request.Password = string(secret[corev1.BasicAuthUsernameKey]), string(secret[corev1.BasicAuthPasswordKey])
		if request.Username == "" {
			return request, fmt.Errorf("spec.authSecret: Secret %s has no key %s", ref.Name, corev1.BasicAuthUsernameKey)
		}
	}
	if ref := s.DockerRegistrySecret; ref != nil && ref.Name != "" {
		secret, err := r.secret(ctx, chart.Namespace, ref.Name, "spec.dockerRegistrySecret")
		if err != nil {
			return request, err
		}
		if request.DockerConfig = secret[corev1.DockerConfigJsonKey]; len(request.DockerConfig) == 0 {
			return request, fmt.Errorf("spec.dockerRegistrySecret: Secret %s has no key %s", ref.Name, corev1.DockerConfigJsonKey)
		}
	}
	if ref := s.RepoCAConfigMap; ref != nil && ref.Name != "" {
		m := &corev1.ConfigMap{}
		found, err := r.get(ctx, configMaps(), chart.Namespace, ref.Name, m)
		if err != nil {
			return request, err
		}
		if !found {
			return request, fmt.Errorf("spec.repoCAConfigMap: ConfigMap %s does not exist", ref.Name)
		}
		for _, key := range slices.Sorted(maps.Keys(m.Data)) {
			request.CA = append(append(request.CA, '\n'), m.Data[key]...)
		}
	}
	return request, nil
}

func (r *run) secret(ctx context.Context, namespace, name, field string) (map[string][]byte, error) {
	s := &corev1.Secret{}
	found, err := r.get(ctx, secrets(), namespace, name, s)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%s: Secret %s does not exist", field, name)
	}
	return s.Data, nil
}

// given are values: all of them, and those of which a change makes another release.
type given struct{ all, watched map[string]any }

// values merges a chart's values.
func (r *run) values(ctx context.Context, chart *helmv1.HelmChart, config *helmv1.HelmChartConfig) (given, error) {
	read := map[string]map[string][]byte{}
	secret := func(name string) (map[string][]byte, bool, error) {
		if data, has := read[name]; has {
			return data, data != nil, nil
		}
		s := &corev1.Secret{}
		found, err := r.get(ctx, secrets(), chart.Namespace, name, s)
		if err != nil {
			return nil, false, err
		}
		if found && s.Data == nil {
			s.Data = map[string][]byte{}
		}
		read[name] = s.Data
		return s.Data, found, nil
	}
	all, err := values(chart, config, secret, everything)
	if err != nil {
		return given{}, err
	}
	watched, err := values(chart, config, secret, watchedOnly)
	return given{all, watched}, err
}

// deployed tells whether the newest revision of a release is the wanted one. It reads nothing but the labels of Helm's
// records (helm pkg/storage/driver): the records themselves hold whole charts.
func (r *run) deployed(ctx context.Context, chart *helmv1.HelmChart, wanted release.Wanted) (bool, error) {
	resource := secrets()
	if chart.Spec.Driver == helmv1.HelmDriverConfigMap {
		resource = configMaps()
	}
	records, err := r.Metadata.Resource(resource).Namespace(wanted.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(labels.Set{"owner": "helm", "name": wanted.Name}).String(),
	})
	if err != nil {
		return false, fmt.Errorf("look for release %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	newest, at := 0, -1
	for i, record := range records.Items {
		if version, err := strconv.Atoi(record.Labels["version"]); err == nil && version > newest && strings.HasPrefix(record.Name, "sh.helm.release.v1.") {
			newest, at = version, i
		}
	}
	return at >= 0 && records.Items[at].Labels["status"] == "deployed" && records.Items[at].Labels[release.LabelHash] == wanted.Hash, nil
}
