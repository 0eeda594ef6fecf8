package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"keelson/testvm/access"
	"keelson/testvm/console"
	"keelson/testvm/kube"
)

// Started is when the present boot began.
func (m *Machine) Started() time.Time { return m.started }

// Console of the machine, all boots.
func (m *Machine) Console() *console.Console { return m.console }

// Mark is where the present boot begins in the console.
func (m *Machine) Mark() console.Mark { return m.mark }

// Expect waits for a line of the present boot that matches pattern, or for one after which it cannot come.
func (m *Machine) Expect(ctx context.Context, pattern string) (console.Line, error) {
	want, err := regexp.Compile(pattern)
	if err != nil {
		return console.Line{}, fmt.Errorf("expect on the console: %w", err)
	}
	line, err := m.console.Wait(ctx, m.mark, want, console.DeadEnd())
	if err == nil && !want.MatchString(line.Text) {
		err = fmt.Errorf("expect `%s` on the console: the boot came to its end with %q; its last lines:\n%s", pattern, line.Text, m.console.Tail(30))
	}
	return line, err
}

// Milestone waits for one of the node's milestones in the present boot.
func (m *Machine) Milestone(ctx context.Context, name string) (console.Line, error) {
	return m.Expect(ctx, console.NodeMilestone(name).String())
}

// Dial connects to an address as seen from inside the machine.
func (m *Machine) Dial(ctx context.Context, address string) (net.Conn, error) {
	ns := m.net.Load()
	if ns == nil {
		return nil, fmt.Errorf("dial in machine %s: it is off", m.config.Name)
	}
	return dial(ctx, ns, address)
}

// Enter runs do on a thread that is in the machine's network.
func (m *Machine) Enter(do func() error) error {
	ns := m.net.Load()
	if ns == nil {
		return fmt.Errorf("enter the network of machine %s: it is off", m.config.Name)
	}
	return in(ns, do)
}

// Kubeconfig waits until this machine's apiserver serves in the present boot, makes an administrator with the token,
// and keeps the result as the machine's file kubeconfig.
func (m *Machine) Kubeconfig(ctx context.Context) ([]byte, error) {
	return m.KubeconfigBy(ctx, m.Supervisor())
}

// KubeconfigBy is Kubeconfig where another machine's supervisor has what makes an administrator: a server without etcd
// gives it to nobody.
func (m *Machine) KubeconfigBy(ctx context.Context, supervisor access.Server) ([]byte, error) {
	if !m.alive() {
		return nil, fmt.Errorf("machine %s: it is off", m.config.Name)
	}
	if _, err := m.Milestone(ctx, "apiserver ready"); err != nil {
		return nil, err
	}
	bootstrap, err := supervisor.Await(ctx, m.done)
	if err != nil {
		return nil, fmt.Errorf("%w; the machine's last lines:\n%s", err, m.console.Tail(30))
	}
	data, err := bootstrap.Kubeconfig(fmt.Sprintf("https://127.0.0.1:%d", m.ports[0]), time.Now())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(m.path("kubeconfig"), data, 0o600); err != nil {
		return nil, fmt.Errorf("keep kubeconfig: %w", err)
	}
	return data, nil
}

// Supervisor is the way to this server's.
func (m *Machine) Supervisor() access.Server {
	return access.Server{URL: fmt.Sprintf("https://127.0.0.1:%d", m.ports[1]), Token: m.token}
}

// Client is an administrator's, who asks this machine's apiserver.
func (m *Machine) Client(ctx context.Context) (*kube.Client, error) {
	data, err := m.Kubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	return kube.Load(data)
}

// reported are what a machine has to tell, below its disk: folders and files.
func reported() []string {
	return []string{"log", "lib/rancher/rke2/agent/logs", "lib/rancher/rke2/agent/containerd/containerd.log", "lib/rancher/rke2/agent/pod-manifests"}
}

// Report leaves in dir what a failure can be understood from. The machine is off afterwards. The disk is a folder, and
// stays until the next machine of that name where keepDisk says so.
func (m *Machine) Report(ctx context.Context, dir, why string, keepDisk bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "failure.txt"), []byte(why+"\n"), 0o644)}
	if m.alive() {
		if data, err := os.ReadFile(m.path("kubeconfig")); err == nil {
			client, err := kube.Load(data)
			if err == nil {
				err = client.Report(ctx, dir)
			}
			errs = append(errs, err)
		}
		errs = append(errs, m.PowerCut(ctx))
	}
	errs = append(errs, copyFile(m.path("console.log"), filepath.Join(dir, "console.log")))
	for name, data := range map[string][]byte{"user-data": m.config.Seed.UserData, "vendor-data": m.config.Seed.VendorData} {
		if data != nil {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
	}
	for _, name := range reported() {
		errs = append(errs, copyAll(filepath.Join(m.path("state"), name), filepath.Join(dir, "guest", name)))
	}
	if keepDisk {
		errs = append(errs, os.Rename(m.path("state"), filepath.Join(dir, "state")))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// copyAll copies a folder or file with what is below it; links and what is absent are passed over.
func copyAll(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch target := filepath.Join(to, rel); {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type().IsRegular():
			return copyFile(path, target)
		}
		return nil
	})
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}
