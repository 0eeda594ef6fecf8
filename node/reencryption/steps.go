package reencryption

import (
	"context"
	"fmt"

	"keelson/node/encryption"
)

// step makes one step: from the record's state, which all servers have loaded, to the next, which all have loaded when
// it returns.
func (m *Manager) step(ctx context.Context, next func(encryption.Settings) (encryption.Settings, error)) error {
	now, err := m.Record.Load(ctx)
	if err != nil {
		return err
	}
	then, err := next(now)
	if err != nil {
		return err
	}
	return m.move(ctx, now, then)
}

// move is a step between two states that are known.
func (m *Manager) move(ctx context.Context, now, then encryption.Settings) error {
	if then.Mark() == now.Mark() {
		return nil
	}
	if err := m.await(ctx, now); err != nil {
		return fmt.Errorf("before %s: %w", then.Stage, err)
	}
	if err := m.Record.Replace(ctx, now, then); err != nil {
		return err
	}
	m.Log.Info("encryption of Secrets", "stage", string(then.Stage), "writes", writes(then.Configuration), "keys", len(then.Keys))
	return m.await(ctx, then)
}

// writes names what Secrets are written with.
func writes(c encryption.Configuration) string {
	if c.Plain {
		return "nothing"
	}
	return c.Keys[0].String()
}

// rotateKeys goes all the way, or on from where a rotation was left.
func (m *Manager) rotateKeys(ctx context.Context) error {
	now, err := m.Record.Load(ctx)
	if err != nil {
		return err
	}
	if now.Idle() {
		err := m.step(ctx, func(s encryption.Settings) (encryption.Settings, error) { return s.Prepared(m.Now(), false) })
		if err != nil {
			return err
		}
	}
	if now.Stage != encryption.Rotate {
		err := m.step(ctx, func(s encryption.Settings) (encryption.Settings, error) { return s.Rotated(false) })
		if err != nil {
			return err
		}
	}
	return m.reencrypt(ctx, false, false)
}

// reencrypt writes all Secrets anew, and drops the keys that none needs any more unless they are to be kept. With force
// it may be at any stage: before rotate it gives the new key up.
func (m *Manager) reencrypt(ctx context.Context, force, keep bool) error {
	now, err := m.Record.Load(ctx)
	if err != nil {
		return err
	}
	if now.Stage != encryption.Rotate && !force {
		return fmt.Errorf("reencrypt: %w: it comes after rotate, and this is %s", encryption.ErrStage, now.Stage)
	}
	if err := m.await(ctx, now); err != nil {
		return fmt.Errorf("before %s: %w", encryption.Active, err)
	}
	if err := m.rewrite(ctx, now.Configuration); err != nil {
		return err
	}
	if keep || now.Plain {
		return nil
	}
	then, err := now.Dropped()
	if err != nil {
		return err
	}
	return m.move(ctx, now, then)
}

// enable has all Secrets encrypted, or all in plain. Each state reads what the other writes.
func (m *Manager) enable(ctx context.Context, enable bool) error {
	err := m.step(ctx, func(s encryption.Settings) (encryption.Settings, error) {
		if s.Plain != enable { // it is so already, and the rewriting may have been cut off
			return s, nil
		}
		return s.Enabled(enable)
	})
	if err != nil {
		return err
	}
	return m.reencrypt(ctx, true, true)
}
