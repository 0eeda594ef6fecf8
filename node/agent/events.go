package agent

import (
	"context"

	"keelson/node/certificate"
	"keelson/node/nodeevent"
)

// tellEvents has events about this machine written on its Node from now on, those of its certificates among them. The
// kubelet's own rights are enough.
func (a *Agent) tellEvents(context.Context) error {
	client, err := a.kubernetes(kubeletConfig)
	if err != nil {
		return err
	}
	a.background("node events", func(ctx context.Context) error {
		return a.events.Run(ctx, client, a.settings.NodeName)
	})
	a.background("watch of certificates", certificate.Watch{
		DataDir: a.settings.DataDir, Log: a.log,
		Tell: func(warning bool, reason, text string) {
			a.events.Tell(nodeevent.Event{Component: certificate.Monitor, Severity: nodeevent.SeverityOf(warning), Reason: reason, Text: text})
		},
	}.Run)
	return nil
}
