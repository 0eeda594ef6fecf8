package helmchart

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"keelson/node/release"
)

// secretOf gives the content of a Secret of the chart's namespace; found is false where there is none.
type secretOf func(name string) (data map[string][]byte, found bool, err error)

// scope says which values are meant.
type scope bool

const (
	everything  scope = false
	watchedOnly scope = true // without those of which a change makes no other release
)

// values merges what a chart is given, in RKE2's order (k3s-io/helm-controller, setValuesSecret and valuesSecretAddConfig):
// of the HelmChart valuesContent, values and valuesSecrets, of the HelmChartConfig the same, and over all of them set.
func values(chart *helmv1.HelmChart, config *helmv1.HelmChartConfig, secret secretOf, which scope) (map[string]any, error) {
	all, err := merged(nil, "HelmChart "+chart.Namespace+"/"+chart.Name, chart.Spec.ValuesContent, chart.Spec.Values, chart.Spec.ValuesSecrets, secret, which)
	if err == nil && config != nil {
		all, err = merged(all, "HelmChartConfig "+config.Namespace+"/"+config.Name, config.Spec.ValuesContent, config.Spec.Values, config.Spec.ValuesSecrets, secret, which)
	}
	if err != nil {
		return nil, err
	}
	if all == nil {
		all = map[string]any{}
	}
	for _, key := range slices.Sorted(maps.Keys(chart.Spec.Set)) {
		if err := set(all, key, chart.Spec.Set[key]); err != nil {
			return nil, fmt.Errorf("HelmChart %s/%s: spec.set: %s: %w", chart.Namespace, chart.Name, key, err)
		}
	}
	return all, nil
}

// merged lays one object's values over what there is. Its name stands before what is wrong with it.
func merged(over map[string]any, object, content string, inline *apiextensionsv1.JSON, secrets []helmv1.SecretSpec, secret secretOf, which scope) (map[string]any, error) {
	lay := func(field string, text []byte) error {
		var values map[string]any
		if err := yaml.Unmarshal(text, &values); err != nil {
			return fmt.Errorf("%s: %s: %w", object, field, err)
		}
		over = loader.MergeMaps(over, values)
		return nil
	}
	if err := lay("spec.valuesContent", []byte(content)); err != nil {
		return nil, err
	}
	if inline != nil {
		if err := lay("spec.values", inline.Raw); err != nil {
			return nil, err
		}
	}
	for i, s := range secrets {
		if len(s.Keys) == 0 || which == watchedOnly && s.IgnoreUpdates {
			continue
		}
		field := fmt.Sprintf("spec.valuesSecrets[%d]: Secret %s", i, s.Name)
		data, found, err := secret(s.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", object, field, err)
		}
		if !found {
			if s.IgnoreUpdates {
				continue // optional: RKE2's word for it
			}
			return nil, fmt.Errorf("%s: %s does not exist; make it, or say ignoreUpdates: true if the chart can do without", object, field)
		}
		for _, key := range s.Keys {
			text, ok := data[key]
			switch {
			case ok:
			case s.IgnoreUpdates:
				continue
			default:
				return nil, fmt.Errorf("%s: %s has no key %s", object, field, key)
			}
			if err := lay(field, text); err != nil {
				// The parser's words quote what it read.
				return nil, fmt.Errorf("%s: %s: key %s is not a mapping in YAML", object, field, key)
			}
		}
	}
	return over, nil
}

// set gives one value as helm's --set does where it has a type, and as --set-string does where it is a text.
func set(into map[string]any, key string, value intstr.IntOrString) error {
	text := value.String()
	if value.Type == intstr.Int || slices.Contains([]string{"true", "false", "null"}, strings.ToLower(text)) {
		return strvals.ParseInto(key+"="+text, into)
	}
	return strvals.ParseIntoString(key+"="+escapeCommas(text), into)
}

// escapeCommas keeps the commas of a text, which Helm would take for the beginning of the next value, unless they are
// escaped already.
func escapeCommas(text string) string {
	var out strings.Builder
	slashes := 0
	for _, c := range text {
		switch c {
		case '\\':
			slashes++
		case ',':
			if slashes%2 == 0 {
				out.WriteByte('\\')
			}
			slashes = 0
		default:
			slashes = 0
		}
		out.WriteRune(c)
	}
	return out.String()
}

// hash is of what a release is made of: the chart, the values, and the settings that change what is done. It is as long as
// a label may be.
func hash(chart string, values map[string]any, w release.Wanted) (string, error) {
	text, err := json.Marshal([]any{chart, values, w.Namespace, w.CreateNamespace, w.TakeOwnership, w.ServerSide, w.ForceConflicts})
	if err != nil {
		return "", fmt.Errorf("take the hash of values: %w", err)
	}
	all := sha256.Sum256(text)
	return hex.EncodeToString(all[:])[:63], nil
}
