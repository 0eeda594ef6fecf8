package reencryption

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/encryption"
	"keelson/node/nodeobject"
	"keelson/node/token"
)

const password = token.Secret("0123456789abcdef")

var errCut = errors.New("power cut") // what a test's cut looks like

// lab is a cluster: its record in a store, servers that load what the record says, Secrets in etcd.
type lab struct {
	t       *testing.T
	record  Bootstrap
	nodes   *fake.Clientset
	names   []string
	lazy    map[string]bool // servers that load nothing
	cutAt   int             // what fails, counted in writes of the record and of Secrets; 0: nothing
	members []string
	history []string

	mu      sync.Mutex // guards what follows
	writes  int
	secrets map[string]string // by name, the beginning of the value
}

func newLab(t *testing.T) *lab {
	t.Helper()
	store := &storetest.Memory{}
	config, err := encryption.Config("aescbc")
	if err != nil {
		t.Fatal(err)
	}
	state := encryption.Settings{Stage: encryption.Start, Data: config}.Mark()
	_, err = bootstrapdata.Save(t.Context(), store, password, bootstrapdata.Data{configEntry: {Content: config}, stateEntry: {Content: []byte(state)}})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		t: t, record: Bootstrap{Store: store, Password: func() token.Secret { return password }}, nodes: fake.NewClientset(),
		names: []string{"one", "two", "three"}, lazy: map[string]bool{}, secrets: map[string]string{},
	}
	for _, name := range l.names {
		member := name + "-0badcafe"
		l.members = append(l.members, member)
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{nodeobject.LabelControlPlane: "true"},
			Annotations: map[string]string{Annotation: state, nodeobject.AnnotationEtcdName: member},
		}}
		if _, err := l.nodes.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range strings.Fields("a b c d e") {
		l.secrets[name] = "k8s:enc:aescbc:v1:aescbckey:"
	}
	return l
}

// cut tells whether the power goes at this write.
func (l *lab) cut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	return l.writes == l.cutAt
}

func (l *lab) Load(ctx context.Context) (encryption.Settings, error) { return l.record.Load(ctx) }

// Replace checks what must hold at every step, and lets the servers load the next state.
func (l *lab) Replace(ctx context.Context, from, next encryption.Settings) error {
	for _, name := range l.names {
		n, err := l.nodes.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil || n.Annotations[Annotation] != from.Mark() {
			l.t.Errorf("from %s to %s while %s has %v, %v", from, next, name, n.Annotations[Annotation], err)
		}
	}
	l.mu.Lock()
	for name, value := range l.secrets {
		if !opens(next.Configuration, value) {
			l.t.Errorf("at %s nobody can read Secret %s: %s", next, name, value)
		}
	}
	l.mu.Unlock()
	if !opens(from.Configuration, next.Prefix()) || !opens(next.Configuration, from.Prefix()) {
		l.t.Errorf("servers at %s and %s cannot read each other's Secrets", from, next)
	}
	if l.cut() {
		return errCut
	}
	if err := l.record.Replace(ctx, from, next); err != nil {
		return err
	}
	l.history = append(l.history, string(next.Stage))
	for _, name := range l.names {
		if l.lazy[name] {
			continue
		}
		// Not nodeobject.Ensure: the fake client ignores field selectors.
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, Annotation, next.Mark())
		if _, err := l.nodes.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	if l.cut() {
		return errCut
	}
	return nil
}

// opens tells whether a configuration reads a value.
func opens(c encryption.Configuration, value string) bool {
	if value == "" {
		return true // identity is always there
	}
	for _, k := range c.Keys {
		if strings.HasPrefix(value, k.Prefix()) {
			return true
		}
	}
	return false
}

// manager is a supervisor that has just started.
func (l *lab) manager() *Manager {
	l.t.Helper()
	scheme := runtime.NewScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		l.t.Fatal(err)
	}
	var objects []runtime.Object
	for name := range l.secrets {
		objects = append(objects, &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		})
	}
	client := metadatafake.NewSimpleMetadataClient(scheme, objects...)
	client.PrependReactor("patch", "secrets", func(a kubetesting.Action) (bool, runtime.Object, error) {
		p := a.(kubetesting.PatchAction)
		if p.GetName() == "gone" {
			return true, nil, apierrors.NewNotFound(corev1.Resource("secrets"), "gone")
		}
		if l.cut() {
			return true, nil, errCut
		}
		now, err := l.Load(context.Background())
		if err != nil {
			return true, nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.secrets[p.GetName()] = now.Prefix()
		return true, &metav1.PartialObjectMetadata{}, nil
	})
	m, err := New(Config{
		Record: l, Nodes: l.nodes, Secrets: client,
		Members: func(context.Context) ([]string, error) { return l.members, nil },
		Raw: func(_ context.Context, each func(string, []byte)) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			for name, value := range l.secrets {
				if name != "gone" {
					each(RawPrefix+"default/"+name, []byte(value+"data"))
				}
			}
			return nil
		},
		Now: func() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) },
		Log: slog.New(slog.DiscardHandler), Deadline: 10 * time.Second,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	go func() { _ = m.Run(l.t.Context()) }()
	return m
}
