package main

import (
	genericapiserver "k8s.io/apiserver/pkg/server"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

// metricsServer serves the usage of nodes and pods that kubelets measure, as upstream's main does.
func metricsServer() int {
	return component(app.NewMetricsServerCommand(genericapiserver.SetupSignalHandler()))
}
