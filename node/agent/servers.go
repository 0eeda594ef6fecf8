package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"keelson/node/endpoints"
	"keelson/node/loadbalancer"
	"keelson/node/status"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
	"keelson/node/tunnel"
)

// startBalancers opens this machine's two ways to the cluster, with what it remembers of the servers. Names and files
// are RKE2's (k3s pkg/agent/loadbalancer).
func (a *Agent) startBalancers(context.Context) (err error) {
	host, _, err := net.SplitHostPort(a.join)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	for _, b := range []struct {
		at                         **loadbalancer.Balancer
		name, listen, server, path string
	}{
		{&a.supervisors, "rke2-agent-load-balancer", a.places.supervisor, a.join, "/ping"},
		{&a.apiServers, "rke2-api-server-agent-load-balancer", a.places.apiServer, net.JoinHostPort(host, a.places.apiPort), "/readyz"},
	} {
		balancer, err := loadbalancer.New(loadbalancer.Config{
			Name: b.name, Listen: b.listen, Default: b.server, StateFile: a.agent("etc", b.name+".json"),
			Probe: loadbalancer.Serving(a.agent("server-ca.crt"), b.path), Log: a.log,
		})
		if err != nil {
			return err
		}
		if others := a.alternatives(b.server); len(others) > 1 && len(balancer.Servers()) < 2 { // nothing better is remembered
			balancer.SetServers(others)
		}
		*b.at = balancer
		a.background(b.name, balancer.Run)
		a.live.Add(func(_ context.Context, r *status.Report) {
			r.Balancers = append(r.Balancers, status.BalancerOf(b.name, balancer))
		})
	}
	return nil
}

// alternatives are the servers that the settings name, first being the address of the one to join by, each with its port.
func (a *Agent) alternatives(first string) []string {
	_, port, err := net.SplitHostPort(first)
	if err != nil {
		return nil
	}
	all := []string{first}
	for _, server := range a.cfg.Settings.ServerAlternatives {
		address, err := joinAddress(server)
		if err != nil {
			continue // node/config has judged it
		}
		if host, own, err := net.SplitHostPort(address); err == nil {
			if first == a.join {
				port = own
			}
			all = append(all, net.JoinHostPort(host, port))
		}
	}
	return all
}

// followServers keeps load balancers and tunnels in line with the cluster's list of servers: asked for once, then
// watched.
func (a *Agent) followServers(ctx context.Context) error {
	set, err := tunnel.NewSet(tunnel.SetConfig{TLS: a.tunnelTLS, OnState: a.heard, Log: a.log})
	if err != nil {
		return err
	}
	a.tunnels = set
	if err := a.persist(ctx, "the list of servers", a.askServers); err != nil {
		return err
	}
	client, err := a.kubernetes(controllerConfig)
	if err != nil {
		return err
	}
	a.background("tunnels", set.Run)
	a.background("servers", func(ctx context.Context) error { return endpoints.Watch(ctx, client, a.setServers) })
	return nil
}

func (a *Agent) askServers(ctx context.Context) error {
	var list []string
	err := a.ask(func(c *supervisorclient.Client) (err error) {
		list, err = c.APIServers(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return marked{errors.New("no kube-apiserver is known yet"), errPassing}
	}
	a.setServers(list)
	return nil
}

// setServers takes a list of kube-apiservers. A supervisor is wherever one of them is.
func (a *Agent) setServers(list []string) {
	var supervisors []string
	for _, server := range list {
		host, _, err := net.SplitHostPort(server)
		if err != nil {
			a.log.Warn("server left out", "server", server, "error", err)
			continue
		}
		supervisors = append(supervisors, net.JoinHostPort(host, a.port))
	}
	supervisors = slices.Compact(supervisors)
	a.log.Info("servers", "apiservers", list, "supervisors", supervisors)
	a.apiServers.SetServers(list)
	a.supervisors.SetServers(supervisors)
	if err := a.tunnels.SetServers(supervisors); err != nil {
		a.log.Warn("tunnels keep their servers", "error", err)
	}
}

// heard passes the state of a tunnel on: it is the quickest sign of a server's life.
func (a *Agent) heard(server string, up bool) {
	a.supervisors.Healthy(server, up)
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return
	}
	a.apiServers.Healthy(net.JoinHostPort(host, a.places.apiPort), up)
}

// tunnelTLS is read for each tunnel anew: authority and certificate change while it runs.
func (a *Agent) tunnelTLS() (*tls.Config, error) {
	ca, err := os.ReadFile(a.agent("server-ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read server CA: %w", err)
	}
	return trust.Access{CA: ca}.TLS(a.show), nil
}
