package crictl

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/fake"
)

// serve starts cri-client's fake runtime and returns its endpoint.
func serve(t *testing.T) string {
	t.Helper()
	endpoint := "unix://" + filepath.Join(t.TempDir(), "cri.sock")
	runtime := fake.NewFakeRemoteRuntime()
	if err := runtime.Start(endpoint); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(runtime.Stop)
	runtime.RuntimeService.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true},
	}}
	return endpoint
}

func run(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = Main(context.Background(), args, Streams{Out: &o, Err: &e}, "v9")
	return code, o.String(), e.String()
}

func TestMainAnswers(t *testing.T) {
	endpoint := serve(t)
	cases := []struct {
		name    string
		args    []string
		code    int
		wantOut string
		wantErr string
	}{
		{"own version", []string{"--version"}, 0, "crictl version v9", ""},
		{"no command", nil, 2, "", "list containers"},
		{"unknown command", []string{"rmi"}, 2, "", "list containers"},
		{"unknown flag", []string{"--debug", "ps"}, 2, "", "debug"},
		{"no runtime", []string{"-r", "unix:///nowhere", "--timeout", "50ms", "ps"}, 1, "", "connect to unix:///nowhere"},
		{"empty list", []string{"-r", endpoint, "ps"}, 0, "CONTAINER", ""},
		{"empty JSON list", []string{"-r", endpoint, "pods", "-o", "json"}, 0, `"items"`, ""},
		{"unknown output", []string{"-r", endpoint, "ps", "-o", "yaml"}, 1, "", "json and table"},
		{"too many arguments", []string{"-r", endpoint, "pods", "x"}, 1, "", "usage: pods"},
		{"pull without image", []string{"-r", endpoint, "pull"}, 1, "", "usage: pull IMAGE"},
		{"pull", []string{"-r", endpoint, "pull", "example.org/app:1"}, 0, "Image is up to date", ""},
		{"images", []string{"-r", endpoint, "images"}, 0, "IMAGE ID", ""},
		{"state", []string{"-r", endpoint, "info"}, 0, "RuntimeReady", ""},
		{"version", []string{"-r", endpoint, "version"}, 0, "RuntimeName", ""},
		{"no such container", []string{"-r", endpoint, "inspect", "abc"}, 1, "", "abc"},
		{"exec without command", []string{"-r", endpoint, "exec", "abc"}, 1, "", "usage: exec"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(c.args...)
			if code != c.code || !strings.Contains(out, c.wantOut) || !strings.Contains(errs, c.wantErr) {
				t.Errorf("got %d, %q, %q\nwant %d, %q, %q", code, out, errs, c.code, c.wantOut, c.wantErr)
			}
		})
	}
}

func TestWords(t *testing.T) {
	cases := []struct{ got, want string }{
		{short("0123456789abcdef"), "0123456789abc"},
		{short("abc"), "abc"},
		{title("RUNNING"), "Running"},
		{title(""), ""},
		{age(time.Now().Add(-90 * time.Second).UnixNano()), "1m30s ago"},
		{imageName(&runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "a:1"}), "a:1"},
		{imageName(&runtimeapi.ImageSpec{Image: "a:1"}), "a:1"},
		{imageName(nil), ""},
	}
	for _, c := range cases {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
