package server

import (
	"context"
	"errors"
	"fmt"
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
	s.live.Add(func(ctx context.Context, r *status.Report) {
		r.Reasons = append(r.Reasons, diagnosis.Node(ctx, s.client, s.settings.NodeName)...)
		r.Reasons = append(r.Reasons, diagnosis.Webhooks(ctx, s.client)...)
	})
	return nil
}

// readdress corrects the Node before kube-proxy reads it. What cannot be done here is done by the cloud controller, later.
func (s *Server) readdress(ctx context.Context) error {
	was, err := nodeobject.Readdress(ctx, s.client, s.settings.NodeName, s.settings.NodeIP)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("the Node's address may be an old one for a while", "error", err)
	}
	if len(was) > 0 {
		s.console(fmt.Sprintf("the address of this machine was %s and is %s", strings.Join(was, ", "), strings.Join(texts(s.settings.NodeIP), ", ")))
	}
	return ctx.Err()
}

// watchDisk keeps a reserve on the disk that etcd's data is on, from the first moment: a disk that is full already must not
// keep etcd from starting.
func (s *Server) watchDisk(context.Context) error {
	w, err := reserve.New(reserve.Config{
		Dir: s.settings.DataDir, Node: s.settings.NodeName, Events: &s.events, Console: s.console, Log: s.log,
		Spares: []reserve.Spare{{What: "old snapshots of etcd", Give: s.shedSnapshots}, reserve.Images("unix://" + containerd.Socket)},
		Client: func() (kubernetes.Interface, error) {
			if !s.isReady() {
				return nil, errors.New("kube-apiserver does not serve yet")
			}
			return s.client, nil
		},
	})
	if err != nil {
		return err
	}
	s.background("disk space", w.Run)
	s.live.Add(status.OfDisk(w))
	return nil
}

// shedSnapshots gives up what retention would keep, where that is of use.
func (s *Server) shedSnapshots(ctx context.Context, enough func() bool) ([]string, error) {
	m := s.snapshots.Load()
	if m == nil || !reserve.SameFileSystem(m.Dir, s.settings.DataDir) {
		return nil, nil
	}
	return m.Shed(ctx, enough)
}
