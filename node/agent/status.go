package agent

import (
	"context"
	"time"

	"keelson/node/sequence"
	"keelson/node/status"
)

// startStatus tells `node status` of this start, from its first step on.
func (a *Agent) startStatus(steps []sequence.Step) {
	a.live.Follow(steps, time.Now())
	if serve := status.Open(a.places.status, a.status, a.log); serve != nil {
		a.background("status", serve)
	}
}

// status is what `node status` shows.
func (a *Agent) status(ctx context.Context) status.Report {
	settings := a.cfg.Settings
	r := status.Files{DataDir: settings.DataDir, Role: status.Agent, Settings: &settings, Notes: status.DefaultNotes, Version: a.cfg.Version}.Report(a.now())
	a.live.Fill(ctx, &r)
	r.Conclude()
	return r
}
