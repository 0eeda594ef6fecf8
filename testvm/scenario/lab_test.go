package scenario

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/console"
	"keelson/testvm/kube"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
	"keelson/testvm/registry"
)

var (
	flagVM    = flag.Bool("vm", false, "run the scenarios; they start machines in QEMU")
	flagArch  = flag.String("arch", "amd64", "of the image: amd64 or arm64")
	flagImage = flag.String("image", "", "the raw image; ../../build/keelson-<arch>.raw where empty")
	flagSeed  = flag.Uint64("seed", 0, "of the random moments of scenario 4; 0 takes a new one")
	flagCuts  = flag.Int("cuts", 2, "power cuts of each kind in scenario 4, and tenths of those at random moments of an installation")
	flagKeep  = flag.Bool("keep-disks", false, "keep the disks of machines that failed")
	flagScale = flag.Float64("patience", 1, "multiplies every deadline")
)

// lab is what the scenarios of one run share.
type lab struct {
	build    string // folder of the image
	image    string // the raw image
	boot     string // folder of kernel, initramfs and command line
	accel    string
	registry *registry.Registry
	random   *rand.Rand
	server   *server // of scenarios 1, 3 and 7; nil until one of them needs it
	ready    time.Duration
}

// the is set by TestMain and stays nil without -vm.
var the *lab

// Deadlines. A loaded host with two cores and no acceleration is the measure.
func patience(d time.Duration) time.Duration { return time.Duration(float64(d) * *flagScale) }

const (
	readyLimit    = 15 * time.Minute // from power to Node Ready
	bootLimit     = 4 * time.Minute  // from power to PID 1's last step
	changeLimit   = 8 * time.Minute  // for anything that an API call sets off
	shutdownLimit = 2 * time.Minute
)

// workloadImage is on a host that no mirror of ours is named after.
const (
	workloadRepository = "keelson/workload"
	workloadImage      = "docker.io/" + workloadRepository + ":1"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !*flagVM {
		os.Exit(m.Run())
	}
	l, err := newLab(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "scenario:", err)
		os.Exit(1)
	}
	the = l
	code := m.Run()
	if l.server != nil {
		l.server.Remove()
	}
	l.registry.Close()
	os.RemoveAll(l.boot)
	os.Exit(code)
}

func newLab(ctx context.Context) (*lab, error) {
	if *flagImage == "" {
		*flagImage = "../../build/keelson-" + *flagArch + ".raw"
	}
	image, err := filepath.Abs(*flagImage)
	if err != nil {
		return nil, err
	}
	l := &lab{build: filepath.Dir(image)}
	if err := l.pin(image); err != nil {
		return nil, err
	}
	probe := qemu.Probe{Binary: qemu.Binary(*flagArch), Arch: *flagArch, Kernel: filepath.Join(l.boot, "vmlinuz"), Cache: filepath.Join(l.build, "vm", "accel.json")}
	var why string
	if l.accel, why, err = probe.Choose(ctx); err != nil {
		return nil, err
	}
	fmt.Printf("accelerator %s (%s)\n", l.accel, why)
	if l.registry, err = registry.Start(); err != nil {
		return nil, err
	}
	workload, err := registry.Workload(ctx, *flagArch)
	if err != nil {
		return nil, err
	}
	if err := l.registry.Push(ctx, workload, workloadRepository+":1"); err != nil {
		return nil, err
	}
	if *flagSeed == 0 {
		*flagSeed = rand.Uint64()
	}
	l.random = rand.New(rand.NewPCG(*flagSeed, 0))
	fmt.Printf("seed %d (repeat with -seed %d)\n", *flagSeed, *flagSeed)
	return l, nil
}

// pin keeps image and kernel as they are now: a build may go on beside the
// tests, and all scenarios of a run must be about the same image.
func (l *lab) pin(image string) error {
	vms := filepath.Join(l.build, "vm")
	if err := os.MkdirAll(vms, 0o755); err != nil {
		return err
	}
	var err error
	if l.boot, err = os.MkdirTemp(vms, "pinned-"); err != nil { // another run may go on beside this one
		return err
	}
	l.image = filepath.Join(l.boot, "image.raw")
	if err := os.Link(image, l.image); err != nil {
		return fmt.Errorf("%w: build the image first (make image)", err)
	}
	for _, name := range []string{"vmlinuz", "initrd", "cmdline"} {
		if err := qemu.CopyFile(filepath.Join(l.build, *flagArch, name), filepath.Join(l.boot, name)); err != nil {
			return err
		}
	}
	return nil
}

// needVM skips, and says so, where nobody asked for machines.
func needVM(t *testing.T) {
	t.Helper()
	if the == nil {
		t.Skip("SKIPPED: boots machines; ask for it with -vm (make vm-test)")
	}
}

// within bounds a wait.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience(limit))
	t.Cleanup(cancel)
	return ctx
}

// userData of an ordinary server whose pulls from docker.io go to the lab's
// registry.
func userData(t *testing.T) []byte {
	t.Helper()
	doc, err := cidata.CloudConfig{
		Hostname:   "keelson-1",
		RKE2:       map[string]any{"role": "server"},
		WriteFiles: mirror(),
	}.Render()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// mirror is the file by which a machine pulls from the lab's registry.
func mirror() []cidata.File {
	return []cidata.File{{
		Path: "/etc/rancher/rke2/registries.yaml", Permissions: "0600",
		Content: fmt.Sprintf("mirrors:\n  docker.io:\n    endpoint: [\"http://%s:%d\"]\n", qemu.HostInGuest, the.registry.Port()),
	}}
}

// newMachine makes a machine that is off. It goes with the test, and leaves a
// report if the test fails.
func newMachine(t *testing.T, firmware qemu.Firmware, change func(*machine.Config)) *machine.Machine {
	t.Helper()
	m := makeMachine(t, firmware, change)
	t.Cleanup(func() {
		report(t, m)
		if err := m.Remove(); err != nil {
			t.Log(err)
		}
	})
	return m
}

func makeMachine(t *testing.T, firmware qemu.Firmware, change func(*machine.Config)) *machine.Machine {
	t.Helper()
	began := time.Now()
	c := machine.Config{
		Dir: filepath.Join(the.build, "vm", slug(t)), Image: the.image, Boot: the.boot, Accel: the.accel, Arch: *flagArch, Firmware: firmware,
		Seed: cidata.Volume{UserData: userData(t)},
		Follow: func(l console.Line) {
			if _, ok := console.ParseStep(l.Text); ok || strings.HasPrefix(l.Text, "---") || console.DeadEnd().MatchString(l.Text) {
				fmt.Printf("    [%6.1f s] %s\n", l.At.Sub(began).Seconds(), l.Text)
			}
		},
	}
	if change != nil {
		change(&c)
	}
	m, err := machine.New(within(t, time.Minute), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func slug(t *testing.T) string { return strings.NewReplacer("/", "-", "'", "").Replace(t.Name()) }

// report keeps what is known of a machine whose test has failed.
func report(t *testing.T, m *machine.Machine) {
	t.Helper()
	if !t.Failed() {
		return
	}
	dir := filepath.Join(the.build, "vm", "reports", slug(t))
	if err := os.RemoveAll(dir); err != nil {
		t.Log(err)
	}
	if err := m.Report(within(t, 3*time.Minute), dir, t.Name()+" failed; seed "+fmt.Sprint(*flagSeed), *flagKeep); err != nil {
		t.Log(err)
	}
	t.Logf("report: %s", dir)
}

// start switches a machine on.
func start(t *testing.T, m *machine.Machine) {
	t.Helper()
	if err := m.Start(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// becomesReady waits for the node of the present boot.
func becomesReady(t *testing.T, m *machine.Machine) *kube.Client {
	t.Helper()
	ctx := within(t, readyLimit)
	client, err := m.Client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.NodeReady(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}
