package server

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/dynamic"

	"keelson/node/chartsource"
	"keelson/node/containerd"
	"keelson/node/helmchart"
	"keelson/node/turn"
	"keelson/node/worker"
)

// chartsTTL is how long a server that has died keeps the others from going on with its charts.
const chartsTTL = 15 * time.Second

// startCharts has the kinds of charts made known, and keeps releases while this server has the turn for it. Nothing of the
// start waits for that.
func (s *Server) startCharts(context.Context) error {
	config, err := s.restConfig()
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client for the kinds of charts: %w", err)
	}
	source, err := chartsource.New(chartsource.Config{
		Dir: s.places.charts, Static: s.server("static"), Hosts: containerd.RegistryDir(s.settings.DataDir),
		Registries: func() (containerd.Registries, error) { return worker.Registries(s.settings) },
	})
	if err != nil {
		return err
	}
	controller, err := helmchart.New(helmchart.Config{
		Connect: func(ctx context.Context) (helmchart.Clients, error) { return helmchart.Connect(ctx, config, s.log) },
		Charts:  source, Node: s.settings.NodeName, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.background("charts", func(ctx context.Context) error {
		for {
			err := helmchart.Define(ctx, client)
			if err == nil {
				break
			}
			s.log.Warn("kinds of charts", "error", err)
			if wait(ctx, persistEvery) != nil {
				return nil
			}
		}
		close(s.chartKinds)
		return turn.Hold(ctx, turn.Config{Client: s.etcd, Name: "charts", TTL: chartsTTL, Log: s.log}, controller.Run)
	})
	return nil
}
