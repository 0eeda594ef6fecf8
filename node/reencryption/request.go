package reencryption

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"keelson/node/encryption"
)

// ErrRequest is a body that cannot be made sense of.
var ErrRequest = errors.New(`the request is not of the form {"stage":"...","force":false,"skip":false} or {"enable":true}`)

// Request is the body of PUT encrypt/config.
type Request struct {
	Stage  *encryption.Stage `json:"stage,omitempty"`
	Enable *bool             `json:"enable,omitempty"`
	Force  bool              `json:"force"` // whatever the stage; servers are waited for all the same
	Skip   bool              `json:"skip"`  // of reencrypt: keep the keys
}

// ParseRequest reads the body.
func ParseRequest(body []byte) (Request, error) {
	var r Request
	if json.Unmarshal(body, &r) != nil || r.Stage == nil && r.Enable == nil {
		return Request{}, ErrRequest
	}
	return r, nil
}

// Status is the answer of GET encrypt/status.
type Status struct {
	Stage        encryption.Stage `json:"stage"`
	ActiveKey    string           `json:"activekey"` // kind and name; empty where Secrets are in plain
	Enable       *bool            `json:"enable,omitempty"`
	HashMatch    bool             `json:"hashmatch,omitempty"`
	HashError    string           `json:"hasherror,omitempty"`
	InactiveKeys []string         `json:"inactivekeys,omitempty"`
	Keelson      Progress         `json:"keelson"`
}

// Status tells how the cluster's Secrets are encrypted. It has no key in it.
func (m *Manager) Status(ctx context.Context) (Status, error) {
	now, err := m.Record.Load(ctx)
	if err != nil {
		return Status{}, err
	}
	s := describe(now, m.Progress())
	late, err := m.late(ctx, now)
	switch {
	case err != nil:
		s.HashError = err.Error()
	case len(late) > 0:
		s.HashError = ErrLagging.Error() + ": " + strings.Join(late, ", ")
	default:
		s.HashMatch = true
	}
	return s, nil
}

func describe(now encryption.Settings, p Progress) Status {
	enabled := !now.Plain
	s := Status{Stage: now.Stage, Enable: &enabled, Keelson: p}
	if p.Running && p.Done > 0 {
		s.Stage = encryption.Active
	}
	for i, k := range now.Keys {
		kind := "AES-CBC " // k3s pkg/server/handlers: the names of the kinds
		if k.Provider == "secretbox" {
			kind = "XSalsa20-POLY1305 "
		}
		if i == 0 && enabled {
			s.ActiveKey = kind + k.Name
		} else {
			s.InactiveKeys = append(s.InactiveKeys, kind+k.Name)
		}
	}
	return s
}
