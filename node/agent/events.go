package agent

import (
	"context"
	"strings"

	"k8s.io/client-go/kubernetes"

	"keelson/node/certificate"
	"keelson/node/containerd"
	"keelson/node/diagnosis"
	"keelson/node/nodeevent"
	"keelson/node/nodeobject"
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

// readdress corrects the Node before kube-proxy reads it. What cannot be done here is done by the cloud controller, later.
func (a *Agent) readdress(ctx context.Context) error {
	client, err := a.kubernetes(kubeletConfig)
	if err != nil {
		return err
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	was, err := nodeobject.Readdress(ask, client, a.settings.NodeName, a.settings.NodeIP)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("the Node's address may be an old one for a while", "error", err)
	}
	if len(was) > 0 {
		a.console("the address of this machine was " + strings.Join(was, ", ") + " and is " + texts(a.settings.NodeIP))
	}
	return ctx.Err()
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
