package scenario

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
	"keelson/testvm/registry"
)

// An image by a definition of a user's own, outside of the tree: the generic
// kernel with its firmware, user-data on the ESP, and an archive of an image
// that no registry has. The machine takes its name from the one and runs the
// other.
func TestOwnDefinition(t *testing.T) {
	needVM(t)
	dir := t.TempDir()
	const shipped = "registry.invalid/shipped/workload:1"
	tag, err := name.NewTag(shipped)
	if err != nil {
		t.Fatal(err)
	}
	workload, err := registry.Workload(within(t, changeLimit), *flagArch)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(filepath.Join(dir, "workload.tar"), tag, workload); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"edge.yaml": "base: metal\narchives: [workload.tar]\nuser-data: seed.yaml\nartefacts: [raw]\n",
		"seed.yaml": "#cloud-config\nhostname: edge-1\nrke2: {role: server}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Programs that were compiled need not be linked again.
	parts := filepath.Join(the.build, "vm", "definition")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parts) })
	if out, err := exec.Command("cp", "-a", filepath.Join(the.build, *flagArch, "bin"), parts).CombinedOutput(); err != nil {
		t.Fatalf("copy programs: %v\n%s", err, out)
	}
	image := filepath.Join(parts, "edge.raw")
	imagebuild(t, "build", "--arch", *flagArch, "--definition", filepath.Join(dir, "edge.yaml"), "--out", image, "--dir", parts)

	m := newMachine(t, qemu.UEFI, func(c *machine.Config) { c.Image, c.Seed = image, cidata.Volume{} })
	start(t, m)
	c := becomesReady(t, m)
	node, err := c.NodeReady(within(t, changeLimit))
	if err != nil {
		t.Fatal(err)
	}
	if node.Name != "edge-1" {
		t.Errorf("the node is called %s, want what the image's user-data says", node.Name)
	}
	out, err := c.RunPod(within(t, changeLimit), kube.Pod{Namespace: "default", Name: "shipped", Image: shipped, Args: []string{"echo", "from", "the", "archive"}})
	if err != nil || out != "from the archive\n" {
		t.Errorf("pod of the shipped image: got %q, %v", out, err)
	}
}
