package machine

import (
	"context"
	"fmt"
	"os"
	"time"

	"keelson/testvm/access"
	"keelson/testvm/console"
	"keelson/testvm/kube"
)

// Booted waits for PID 1's last own step of the present boot.
func (m *Machine) Booted(ctx context.Context) (console.Step, error) {
	line, err := m.Expect(ctx, console.BootComplete().String())
	if err != nil {
		return console.Step{}, err
	}
	step, _ := console.ParseStep(line.Text)
	return step, nil
}

// Kubeconfig waits until the apiserver of the present boot serves, makes an
// administrator with the token and keeps the result as the machine's file
// kubeconfig, readable for its owner alone.
func (m *Machine) Kubeconfig(ctx context.Context) ([]byte, error) {
	if _, err := m.Milestone(ctx, "apiserver ready"); err != nil {
		return nil, err
	}
	bootstrap, err := m.Supervisor().Await(ctx, m.proc.Done())
	if err != nil {
		return nil, fmt.Errorf("%w; the machine's last lines:\n%s", err, m.console.Tail(30))
	}
	data, err := bootstrap.Kubeconfig(fmt.Sprintf("https://127.0.0.1:%d", m.ports[0].Host), time.Now())
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
	return access.Server{URL: fmt.Sprintf("https://127.0.0.1:%d", m.ports[1].Host), Token: m.token}
}

// Client waits for the present boot's apiserver and returns an administrator's
// client.
func (m *Machine) Client(ctx context.Context) (*kube.Client, error) {
	data, err := m.Kubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	return kube.Load(data)
}

// Files that a person may want to know of.
func (m *Machine) KubeconfigPath() string { return m.path("kubeconfig") }

// ConsolePath is where all of the console is kept.
func (m *Machine) ConsolePath() string { return m.path("console.log") }
