package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"

	"keelson/node/supervisorapi"
	"keelson/node/worker"
)

// registry is the listener of an agent's embedded registry, which other nodes and this one's containerd ask.
type registry struct {
	api      *supervisorapi.Server
	images   http.Handler
	clientCA string // path
}

// startRegistry opens :9345 on this agent where the cluster has the embedded registry, with the limits that servers
// have, and has containerd ask it first.
func (a *Agent) startRegistry(context.Context) error {
	if !a.settings.EmbeddedRegistry {
		return nil
	}
	client, err := a.kubernetes(controllerConfig)
	if err != nil {
		return err
	}
	r := &registry{clientCA: a.agent("client-ca.crt")}
	if r.images, err = a.worker.Registry(a.settings, client, a.port, a.tunnelTLS); err != nil {
		return err
	}
	clientCA, err := os.ReadFile(r.clientCA)
	if err != nil {
		return fmt.Errorf("read client CA: %w", err)
	}
	r.api, err = supervisorapi.New(supervisorapi.Config{Address: a.places.listen, ClientCA: clientCA, Log: a.log, Certificate: func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(a.agent("serving-kubelet.crt"), a.agent("serving-kubelet.key"))
		if err != nil {
			return nil, fmt.Errorf("load serving certificate: %w", err)
		}
		return &cert, nil
	}})
	if err != nil {
		return err
	}
	if err := r.install(); err != nil {
		return err
	}
	a.registry = r
	a.background("embedded registry", r.api.Run)
	return worker.ApplyRegistries(a.settings)
}

// install takes over the authority of the moment.
func (r *registry) install() error {
	if r == nil {
		return nil
	}
	clientCA, err := os.ReadFile(r.clientCA)
	if err != nil {
		return fmt.Errorf("read client CA: %w", err)
	}
	return r.api.InstallRegistry(clientCA, r.images)
}
