package reserve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
)

// Images gives up the container images that no container uses, like `crictl rmi --prune`. The machine's own, and those
// that it ships, are pinned and stay.
func Images(endpoint string) Spare {
	return Spare{What: "unused container images", Give: func(ctx context.Context, _ func() bool) ([]string, error) {
		runtime, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(time.Second).Build(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
		}
		defer runtime.Close(ctx)
		images, err := criclient.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(time.Second).Build(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
		}
		defer images.Close(ctx)
		return prune(ctx, runtime, images)
	}}
}

func prune(ctx context.Context, runtime internalapi.RuntimeService, images internalapi.ImageManagerService) ([]string, error) {
	// Images first: a container that is made after that has one of them, or one that is not in the list.
	all, err := images.ListImages(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	containers, err := runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	used := map[string]bool{}
	for _, c := range containers {
		used[c.GetImageId()], used[c.GetImageRef()], used[c.GetImage().GetImage()] = true, true, true
	}
	var gone []string
	var problems []error
	for _, image := range unused(all, used) {
		if err := images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: image.Id}); err != nil {
			problems = append(problems, fmt.Errorf("remove image %s: %w", name(image), err))
			continue
		}
		gone = append(gone, name(image))
	}
	return gone, errors.Join(problems...)
}

func unused(all []*runtimeapi.Image, used map[string]bool) []*runtimeapi.Image {
	return slices.DeleteFunc(slices.Clone(all), func(i *runtimeapi.Image) bool {
		isUsed := func(name string) bool { return used[name] }
		return i.GetPinned() || i.GetId() == "" || used[i.GetId()] || slices.ContainsFunc(i.GetRepoTags(), isUsed) || slices.ContainsFunc(i.GetRepoDigests(), isUsed)
	})
}

func name(i *runtimeapi.Image) string {
	for _, names := range [][]string{i.GetRepoTags(), i.GetRepoDigests()} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return i.GetId()
}
