package helmchart

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

func definition(t *testing.T, text []byte) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, crd); err != nil {
		t.Fatal(err)
	}
	return crd
}

// The API server's own check of a definition finds nothing wrong.
func TestDefinitionsAreValid(t *testing.T) {
	for _, text := range [][]byte{definitionOfCharts, definitionOfConfigs} {
		crd := definition(t, text)
		scheme := runtime.NewScheme()
		for _, add := range []func(*runtime.Scheme) error{apiextensionsv1.AddToScheme, apiextensions.AddToScheme} {
			if err := add(scheme); err != nil {
				t.Fatal(err)
			}
		}
		crd.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
		crd.Status.StoredVersions = []string{"v1"}
		internal := &apiextensions.CustomResourceDefinition{}
		if err := scheme.Convert(crd, internal, nil); err != nil {
			t.Fatal(err)
		}
		for _, problem := range validation.ValidateCustomResourceDefinition(t.Context(), internal) {
			t.Errorf("%s: %v", crd.Name, problem)
		}
	}
}

// Every field of RKE2's types is in the definitions, as the type that it has there, and no other: the API server drops what
// a definition does not know.
func TestDefinitionsHaveEveryField(t *testing.T) {
	for _, c := range []struct {
		text []byte
		of   any
	}{{definitionOfCharts, helmv1.HelmChart{}}, {definitionOfConfigs, helmv1.HelmChartConfig{}}} {
		crd := definition(t, c.text)
		top := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties
		compare(t, crd.Spec.Names.Kind+".spec", top["spec"], reflect.TypeOf(c.of).FieldByIndex(fieldOf(t, c.of, "Spec")).Type)
		if _, has := reflect.TypeOf(c.of).FieldByName("Status"); has {
			compare(t, crd.Spec.Names.Kind+".status", top["status"], reflect.TypeOf(helmv1.HelmChartStatus{}))
		}
	}
}

func fieldOf(t *testing.T, of any, name string) []int {
	t.Helper()
	f, ok := reflect.TypeOf(of).FieldByName(name)
	if !ok {
		t.Fatalf("%T has no %s", of, name)
	}
	return f.Index
}

func compare(t *testing.T, at string, s apiextensionsv1.JSONSchemaProps, of reflect.Type) {
	t.Helper()
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	free := s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields
	switch {
	case of == reflect.TypeFor[apiextensionsv1.JSON]():
		if !free || s.Type != "" {
			t.Errorf("%s: takes not all values", at)
		}
	case of == reflect.TypeFor[metav1.Duration](), of.Kind() == reflect.String:
		if s.Type != "string" {
			t.Errorf("%s: got type %q", at, s.Type)
		}
	case of.Kind() == reflect.Bool:
		if s.Type != "boolean" {
			t.Errorf("%s: got type %q", at, s.Type)
		}
	case of.Kind() == reflect.Int32:
		if s.Type != "integer" || s.Format != "int32" {
			t.Errorf("%s: got type %q", at, s.Type)
		}
	case of.Kind() == reflect.Slice:
		if s.Type != "array" || s.Items == nil || s.Items.Schema == nil {
			t.Fatalf("%s: is no list", at)
		}
		compare(t, at+"[]", *s.Items.Schema, of.Elem())
	case of.Kind() == reflect.Map:
		if s.AdditionalProperties == nil || !s.AdditionalProperties.Schema.XIntOrString {
			t.Errorf("%s: is no map of texts and numbers", at)
		}
	case of.Kind() == reflect.Struct && !free:
		fields := map[string]reflect.Type{}
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			fields[name] = of.Field(i).Type
		}
		if want, got := slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(want, got) {
			t.Errorf("%s: got %q, want %q", at, got, want)
		}
		for name, property := range s.Properties {
			compare(t, at+"."+name, property, fields[name])
		}
	}
}

// Nobody's saying what is to be done about a failure is not the wish to uninstall.
func TestNoDefaultPolicy(t *testing.T) {
	for _, text := range [][]byte{definitionOfCharts, definitionOfConfigs} {
		spec := definition(t, text).Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		if d := spec.Properties["failurePolicy"].Default; d != nil {
			t.Errorf("got the default %s", d.Raw)
		}
	}
}

// Define returns when both kinds are served, and not before.
func TestDefine(t *testing.T) {
	resource := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{resource: "CustomResourceDefinitionList"})
	defined := make(chan *unstructured.Unstructured, 2)
	client.PrependReactor("patch", resource.Resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
		crd := &unstructured.Unstructured{}
		err := json.Unmarshal(a.(clienttesting.PatchAction).GetPatch(), &crd.Object)
		defined <- crd
		return true, crd, err
	})
	changes := make(chan *watch.FakeWatcher, 2)
	client.PrependWatchReactor(resource.Resource, func(clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFake()
		changes <- w
		return true, w, nil
	})
	done := make(chan error, 1)
	go func() { done <- Define(t.Context(), client) }()
	for _, name := range []string{"helmcharts.helm.cattle.io", "helmchartconfigs.helm.cattle.io"} {
		crd := <-defined
		if crd.GetName() != name {
			t.Fatalf("got %s, want %s", crd.GetName(), name)
		}
		w := <-changes
		for _, status := range []string{"False", "True"} {
			select {
			case err := <-done:
				t.Fatalf("it did not wait for %s: %v", name, err)
			default:
			}
			next := crd.DeepCopy()
			if err := unstructured.SetNestedSlice(next.Object, []any{map[string]any{"type": "Established", "status": status}}, "status", "conditions"); err != nil {
				t.Fatal(err)
			}
			w.Modify(next)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
