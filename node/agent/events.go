package agent

import (
	"context"

	"k8s.io/client-go/kubernetes"

	"keelson/node/certificate"
	"keelson/node/containerd"
	"keelson/node/diagnosis"
	"keelson/node/nodeevent"
	"keelson/node/reserve"
	"keelson/node/status"
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
	name := a.settings.NodeName
	a.live.Add(func(ctx context.Context, r *status.Report) {
		r.Reasons = append(r.Reasons, diagnosis.Node(ctx, client, name)...)
	})
	return nil
}

// watchDisk keeps a reserve on the disk that the kubelet and the certificates are on.
func (a *Agent) watchDisk(context.Context) error {
	w, err := reserve.New(reserve.Config{
		Dir: a.settings.DataDir, Node: a.settings.NodeName, Events: &a.events, Console: a.console, Log: a.log,
		Spares: []reserve.Spare{reserve.Images("unix://" + containerd.Socket)},
		Client: func() (kubernetes.Interface, error) { return a.kubernetes(kubeletConfig) },
	})
	if err != nil {
		return err
	}
	a.background("disk space", w.Run)
	a.live.Add(status.OfDisk(w))
	return nil
}
