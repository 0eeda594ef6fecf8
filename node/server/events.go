package server

import (
	"context"

	"keelson/node/certificate"
	"keelson/node/nodeevent"
)

// tellEvents has events about this machine written on its Node from now on, those of its certificates among them.
func (s *Server) tellEvents(context.Context) error {
	s.background("node events", func(ctx context.Context) error {
		return s.events.Run(ctx, s.client, s.settings.NodeName)
	})
	s.background("watch of certificates", certificate.Watch{
		DataDir: s.settings.DataDir, Log: s.log,
		Tell: func(warning bool, reason, text string) {
			s.events.Tell(nodeevent.Event{Component: certificate.Monitor, Severity: nodeevent.SeverityOf(warning), Reason: reason, Text: text})
		},
	}.Run)
	return nil
}
