package agent

import (
	"context"
	"time"

	"keelson/node/sequence"
	"keelson/node/status"
)

// startStatus tells `node status` of this start, from its first step on. Without the socket the agent is an agent all the
// same.
func (a *Agent) startStatus(steps []sequence.Step) {
	a.live.Begin(time.Now().UTC().Truncate(time.Second))
	for i := range steps {
		steps[i].Run = a.live.Step(steps[i].Name, steps[i].Run)
	}
	if a.places.status == "" {
		return
	}
	listener, err := status.Listen(a.places.status)
	if err != nil {
		a.log.Error("node status is not served", "error", err)
		return
	}
	a.background("status", func(ctx context.Context) error { return status.Serve(ctx, listener, a.status, a.log) })
}

// status is what `node status` shows.
func (a *Agent) status(ctx context.Context) status.Report {
	settings := a.cfg.Settings
	r := status.Files{DataDir: settings.DataDir, Role: status.Agent, Settings: &settings, Version: a.cfg.Version}.Report(a.now())
	a.live.Fill(ctx, &r)
	return r
}
