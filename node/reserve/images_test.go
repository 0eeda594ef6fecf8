package reserve

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	apitest "k8s.io/cri-api/pkg/apis/testing"
	"k8s.io/cri-client/pkg/fake"
)

func TestUnused(t *testing.T) {
	image := func(id, tag, digest string) *runtimeapi.Image {
		return &runtimeapi.Image{Id: id, RepoTags: []string{tag}, RepoDigests: []string{digest}}
	}
	pinned := image("p", "pause:3", "pause@p")
	pinned.Pinned = true
	all := []*runtimeapi.Image{image("1", "a:1", "a@1"), image("2", "b:1", "b@2"), image("3", "c:1", "c@3"), image("4", "d:1", "d@4"), pinned, {RepoTags: []string{"no id"}}}
	var got []string
	for _, i := range unused(all, map[string]bool{"2": true, "c:1": true, "d@4": true, "": true}) {
		got = append(got, i.Id)
	}
	if !slices.Equal(got, []string{"1"}) {
		t.Errorf("got %v, want the one that is neither used by id, tag or digest nor pinned", got)
	}
	for want, i := range map[string]*runtimeapi.Image{"a:1": all[0], "x@1": {Id: "1", RepoDigests: []string{"x@1"}}, "1": {Id: "1"}} {
		if got := name(i); got != want {
			t.Errorf("name of %v: got %s", i, got)
		}
	}
}

// Through the socket of a runtime.
func TestImages(t *testing.T) {
	endpoint := "unix://" + filepath.Join(t.TempDir(), "cri.sock")
	if _, err := Images(endpoint).Give(t.Context(), nil); err == nil {
		t.Error("nobody is there: no error")
	}
	runtime := fake.NewFakeRemoteRuntime()
	if err := runtime.Start(endpoint); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(runtime.Stop)
	runtime.ImageService.SetFakeImagePinned("pause:3", true)
	runtime.ImageService.SetFakeImages([]string{"used:1", "old:1", "pause:3"})
	runtime.RuntimeService.SetFakeContainers([]*apitest.FakeContainer{{ContainerStatus: runtimeapi.ContainerStatus{
		Id: "c", Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "used:1"}, ImageRef: "used:1",
		State: runtimeapi.ContainerState_CONTAINER_EXITED, // one that will start again
	}}})
	gone, err := Images(endpoint).Give(t.Context(), nil)
	if err != nil || !slices.Equal(gone, []string{"old:1"}) {
		t.Errorf("gone: %v, %v", gone, err)
	}
	if left := len(runtime.ImageService.Images); left != 2 {
		t.Errorf("%d images are left", left)
	}
	runtime.ImageService.SetFakeImages([]string{"old:2"})
	runtime.ImageService.InjectError("RemoveImage", errors.New("busy"))
	if gone, err := Images(endpoint).Give(t.Context(), nil); len(gone) != 0 || err == nil || !strings.Contains(err.Error(), "remove image old:2: ") {
		t.Errorf("gone: %v, %v", gone, err)
	}
	runtime.RuntimeService.InjectError("ListContainers", errors.New("broken"))
	if gone, err := Images(endpoint).Give(t.Context(), nil); len(gone) != 0 || err == nil {
		t.Errorf("nobody knows what is used, and %v is gone: %v", gone, err)
	}
}
