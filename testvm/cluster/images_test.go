package cluster

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/netns"
	"keelson/testvm/registry"
)

// Nodes share images: what one has pulled the others run when the registry is gone, a server from an agent and an agent
// from a server or another agent, by tag and by digest; and a registry that registries.yaml does not name is not shared.
func TestSharedImages(t *testing.T) {
	c := newCluster(t)
	images, err := registry.Start()
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = images.Close()
		}
	}()
	stop, err := c.lan.Share(images.Port())
	if err != nil {
		t.Fatal(err)
	}
	workload, err := registry.Workload(t.Context(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]string{}
	holders := map[string]string{"of-server": "server-1", "of-agent": "agent-1"}
	for repository := range holders {
		own, err := random.Layer(20<<20, types.DockerLayer) // which no other image has
		if err != nil {
			t.Fatal(err)
		}
		image, err := mutate.AppendLayers(workload, own)
		if err != nil {
			t.Fatal(err)
		}
		if err := images.Push(t.Context(), image, "keelson/"+repository+":1"); err != nil {
			t.Fatal(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[repository] = digest.String()
	}
	shares := func(join bool) func(*cidata.CloudConfig) {
		return func(cc *cidata.CloudConfig) {
			if join {
				joins(1)(cc)
			} else {
				cc.RKE2["embedded-registry"] = true
			}
			cc.WriteFiles[0].Content = fmt.Sprintf("mirrors:\n  docker.io:\n    endpoint: [\"http://%s:%d\"]\n", netns.Gateway(), images.Port())
		}
	}
	server := c.add("server-1", "server", 1, shares(false))
	c.start(server, c.add("agent-1", "agent", 2, shares(true)), c.add("agent-2", "agent", 3, shares(true)))
	client := c.client(server)
	c.whole(client)

	run := func(node, name, image string) error {
		_, err := client.RunPod(within(t, changeLimit), kube.Pod{Namespace: "default", Name: name + "-on-" + node, Image: image, Node: node, Args: []string{"echo", "hello"}})
		return err
	}
	for repository, holder := range holders {
		if err := run(holder, repository, "docker.io/keelson/"+repository+":1"); err != nil {
			t.Fatal(err)
		}
	}
	pulled := len(images.Requests())
	if pulled == 0 {
		t.Error("nothing was pulled from the registry")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := images.Close(); err != nil {
		t.Fatal(err)
	}
	closed = true
	for _, repository := range slices.Sorted(maps.Keys(holders)) {
		for _, node := range c.names() {
			name := "docker.io/keelson/" + repository + ":1"
			if node == "agent-2" {
				name = "docker.io/keelson/" + repository + "@" + digests[repository]
			}
			if err := run(node, repository+"-again", name); err != nil {
				t.Errorf("%s on %s without the registry: %v", name, node, err)
			}
		}
	}
}
