package reencryption

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restfake "k8s.io/client-go/rest/fake"

	"keelson/node/encryption"
)

// disk is a server's folder with the two files.
type disk struct {
	t   *testing.T
	dir string
}

func newDisk(t *testing.T) disk {
	d := disk{t, t.TempDir()}
	if err := os.Mkdir(filepath.Join(d.dir, "cred"), 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d disk) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, "cred", name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// settings makes a configuration of its own.
func (d disk) settings(stage encryption.Stage) encryption.Settings {
	d.t.Helper()
	config, err := encryption.Config("aescbc")
	if err != nil {
		d.t.Fatal(err)
	}
	return encryption.Settings{Stage: stage, Data: config}
}

func (d disk) put(s encryption.Settings) {
	d.t.Helper()
	d.write("encryption-config.json", string(s.Data))
	d.write("encryption-state.json", s.Mark())
}

// announced is what the Node says.
func announced(t *testing.T, client *fake.Clientset) string {
	t.Helper()
	n, err := client.CoreV1().Nodes().Get(t.Context(), "cp-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Annotations[Annotation]
}

// TestAnnouncerSaysWhatIsLoaded follows a server through a rotation, in time that only passes when nothing else happens:
// the files change, kube-apiserver loads them some seconds later, and not before that the Node says so.
func TestAnnouncerSaysWhatIsLoaded(t *testing.T) {
	d := newDisk(t)
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1"}})
		var loaded atomic.Value
		var down atomic.Bool
		var log bytes.Buffer
		changed := make(chan struct{}, 1)
		a := Announcer{
			ServerDir: d.dir, Node: "cp-1", Client: client, Changed: changed, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Loaded: func(context.Context) (string, error) {
				if down.Load() {
					return "", errors.New("kube-apiserver is down")
				}
				return loaded.Load().(string), nil
			},
		}
		first := d.settings(encryption.Start)
		d.put(first)
		loaded.Store(first.Hash())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		pass := func() {
			time.Sleep(3 * lookAgain) // of the bubble
			synctest.Wait()
		}
		says := func(when, want string) {
			t.Helper()
			if got := announced(t, client); got != want {
				t.Errorf("%s: the Node says %q, want %q", when, got, want)
			}
		}
		pass()
		says("at the start", first.Mark())

		next := d.settings(encryption.Rotate)
		d.write("encryption-config.json", string(next.Data)) // the other file is still the one of before
		changed <- struct{}{}
		pass()
		says("between the two writes", first.Mark())
		d.put(next)
		changed <- struct{}{}
		pass()
		says("before kube-apiserver has loaded it", first.Mark())
		down.Store(true)
		pass()
		says("while nobody answers", first.Mark())
		down.Store(false)
		loaded.Store(next.Hash())
		pass() // nobody tells of this: it is looked at again
		says("when it is loaded", next.Mark())

		loaded.Store("another")
		pass()
		says("with nothing changed", next.Mark())
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if text := log.String(); strings.Count(text, "has not loaded") != 1 || strings.Count(text, "is down") != 1 || strings.Contains(text, "secret") {
			t.Errorf("each reason is told once: %s", text)
		}
	})
}

// TestAnnouncerWithoutKubeAPIServer: a server of etcd alone says what its files say.
func TestAnnouncerWithoutKubeAPIServer(t *testing.T) {
	d := newDisk(t)
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cp-1"}})
	a := Announcer{ServerDir: d.dir, Node: "cp-1", Client: client, Log: slog.New(slog.DiscardHandler)}
	for _, file := range []string{"encryption-config.json", "encryption-state.json"} {
		if err := a.announce(t.Context()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without %s: got %v", file, err)
		}
		d.write(file, "{}")
	}
	if err := a.announce(t.Context()); err == nil {
		t.Error("files that say nothing were announced")
	}
	s := d.settings(encryption.Start)
	d.put(s)
	if err := a.announce(t.Context()); err != nil || announced(t, client) != s.Mark() {
		t.Errorf("got %v, the Node says %q", err, announced(t, client))
	}
}

func TestLoadedOf(t *testing.T) {
	answer := func(code int, body string) rest.Interface {
		return &restfake.RESTClient{
			NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
			Client: restfake.CreateHTTPClient(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path != "/metrics" {
					t.Errorf("asked for %s", r.URL.Path)
				}
				return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
			}),
		}
	}
	if got, err := LoadedOf(answer(200, sample))(t.Context()); err != nil || got != "abcd" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := LoadedOf(answer(403, ""))(t.Context()); err == nil || !strings.Contains(err.Error(), "read kube-apiserver's metrics") {
		t.Errorf("forbidden: got %v", err)
	}
	if _, err := LoadedOf(answer(200, strings.Repeat("x", 2*longestLine)))(t.Context()); err == nil {
		t.Error("a line without an end was taken")
	}
}
