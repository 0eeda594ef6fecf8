package main

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"keelson/init/layout"
	"keelson/init/metadata"
	"keelson/init/netconfig"
	"keelson/init/network"
	"keelson/init/tlschild"
	"keelson/init/userdata"
)

// The network, which is needed before the user-data where a cloud keeps it, and
// after it in the form that it asks for.

// networkBound is how long the boot waits for an address; the network goes on
// trying after it, and so does the node.
const networkBound = 20 * time.Second

// online brings the network up for a source that is reached by it.
func (m *machine) online(ctx context.Context, documents []userdata.Document) error {
	plan, problems := netconfig.Load(documents)
	if userdata.Refused(problems) {
		plan = netconfig.Plan{} // the step tells of them when all documents are there
	}
	if err := m.bringUp(plan, ""); err != nil {
		return err
	}
	return m.net.Wait(ctx, networkBound)
}

// secure makes a TLS connection for a source, by a child.
func (m *machine) secure(ctx context.Context, address string, trust userdata.CACerts) (net.Conn, error) {
	child := tlschild.Config{Program: layout.Node, Reaper: m.reaper}
	return child.Dial(ctx, address, tlschild.Roots{PEM: tlschild.Trusted(trust.Trusted), Alone: trust.RemoveDefaults})
}

// bringUp runs the network by a plan; one that runs by the same plan stays.
func (m *machine) bringUp(plan netconfig.Plan, hostname string) error {
	if m.net != nil && reflect.DeepEqual(plan, m.netPlan) {
		return nil
	}
	n, err := network.New(network.Config{Plan: plan, Hostname: hostname, Logger: m.log})
	if err != nil {
		return err
	}
	if m.net != nil {
		m.endNetwork()
	}
	ctx, cancel := context.WithCancelCause(m.ctx)
	done := make(chan struct{})
	m.net, m.netPlan = n, plan
	m.endNetwork = func() {
		cancel(network.ErrReplaced)
		<-done
	}
	m.task("network", func(context.Context) error {
		defer close(done)
		return n.Run(ctx)
	})
	return nil
}

func (m *machine) startNetwork(ctx context.Context) error {
	if err := m.bringUp(m.plan, m.config.Hostname); err != nil {
		return err
	}
	err := m.net.Wait(ctx, networkBound)
	if m.report != nil {
		m.task("report to Azure", m.tellCloud)
	}
	return err
}

// Attempts to tell the cloud that the machine is up.
const (
	reportAttempts = 20
	reportPause    = 15 * time.Second
)

func (m *machine) tellCloud(ctx context.Context) (err error) {
	for range reportAttempts {
		if err = m.report(ctx, &metadata.Client{}, ""); err == nil || ctx.Err() != nil {
			return err
		}
		m.log.Warn("report to the cloud", "error", err)
		select {
		case <-time.After(reportPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("given up: %w", err)
}

// failureBound is how long the machine tries to tell a cloud of a failure before
// it looks for corrected user-data again.
const failureBound = 30 * time.Second

// tellFailure tells the cloud why the user-data was refused, so that whoever
// made the machine sees it without a console. It is told again only where it is
// another reason; ready is told in any case once the machine is.
func (m *machine) tellFailure(ctx context.Context, report cloudReport, told *string) {
	failure := strings.Join(m.refusal, "; ")
	if report == nil || failure == *told {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, failureBound)
	defer cancel()
	err := m.online(ctx, m.documents.Network)
	if err == nil {
		err = report(ctx, &metadata.Client{}, failure)
	}
	if err != nil {
		m.log.Warn("report to the cloud", "error", err)
		return
	}
	*told = failure
	m.con.Printf("user-data: the cloud was told that it is refused")
}
