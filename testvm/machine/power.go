package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// running tells whether there is a QEMU.
func (m *Machine) running() bool {
	if m.proc == nil {
		return false
	}
	select {
	case <-m.proc.Done():
		return false
	default:
		return true
	}
}

// Ended waits until QEMU has ended by itself and its console was read to the
// end. The reason is QEMU's (guest-shutdown, guest-reset, ...).
func (m *Machine) Ended(ctx context.Context) (reason string, err error) {
	if m.proc == nil {
		return "", errors.New("wait for the machine's end: it is not running")
	}
	if err := m.proc.Wait(ctx); err != nil {
		return "", fmt.Errorf("%w; its last lines:\n%s", err, m.console.Tail(30))
	}
	if err := <-m.read; err != nil {
		return "", err
	}
	m.read <- nil // for who asks again
	return m.proc.QMP().ShutdownReason(), nil
}

// PowerCut takes the power away. What the guest did not flush is lost as far
// as QEMU had not given it to the host yet.
func (m *Machine) PowerCut(ctx context.Context) error {
	if !m.running() {
		return errors.New("power cut: the machine is not running")
	}
	m.proc.Kill()
	if _, err := m.Ended(ctx); err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	return m.console.Note(fmt.Sprintf("--- testvm: power cut ends boot %d ---", m.boot))
}

// Shutdown presses the power button and waits until the machine has switched
// itself off. The context is its deadline; the machine is then still on.
func (m *Machine) Shutdown(ctx context.Context) error {
	if !m.running() {
		return errors.New("shut down: the machine is not running")
	}
	if err := m.proc.QMP().Powerdown(ctx); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	reason, err := m.Ended(ctx)
	if err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	if reason != "guest-shutdown" {
		return fmt.Errorf("shut down: the machine ended by %q, not by switching itself off; its last lines:\n%s", reason, m.console.Tail(30))
	}
	return m.console.Note(fmt.Sprintf("--- testvm: shutdown ends boot %d ---", m.boot))
}

// Restart shuts the machine down and switches it on again.
func (m *Machine) Restart(ctx context.Context) error {
	if err := m.Shutdown(ctx); err != nil {
		return err
	}
	return m.Start(ctx)
}

// Announce tells the guest that the seed's disk is not what it was, as the
// change of a medium would: the disk changes its size.
func (m *Machine) Announce(ctx context.Context) error {
	m.announced++
	info, err := os.Stat(m.path("cidata.img"))
	if err != nil {
		return fmt.Errorf("announce seed: %w", err)
	}
	size := info.Size() + int64(m.announced)<<20
	if _, err := m.proc.QMP().Execute(ctx, "block_resize", map[string]any{"device": "disk1", "size": size}); err != nil {
		return fmt.Errorf("announce seed: %w", err)
	}
	return nil
}

// Close ends the machine as it is and lets go of its files.
func (m *Machine) Close() {
	if m.running() {
		m.proc.Kill()
		<-m.proc.Done()
		<-m.read
	}
	for _, f := range m.files {
		f.Close()
	}
	m.files = nil
}

// Remove closes the machine and deletes its files.
func (m *Machine) Remove() error {
	m.Close()
	if err := os.RemoveAll(m.config.Dir); err != nil {
		return fmt.Errorf("remove machine: %w", err)
	}
	return nil
}
