package worker

import (
	"crypto/tls"

	"k8s.io/client-go/kubernetes"

	"keelson/node/config"
	"keelson/node/mirror"
)

// Registry makes this node's embedded registry over its containerd, and begins to follow the nodes that it asks: those
// that client sees. settings are resolved; port is that of supervisors, and show gives what connections to other nodes
// show and believe. Somebody has to put it on the supervisor's port.
func (w *Worker) Registry(settings config.Config, client kubernetes.Interface, port string, show func() (*tls.Config, error)) (*mirror.Mirror, error) {
	registries, err := Registries(settings)
	if err != nil {
		return nil, err
	}
	shared := registries.Shared()
	if len(shared) == 0 {
		w.cfg.Log.Warn("embedded-registry is set, and no images are shared: registries.yaml has no mirrors", "file", settings.PrivateRegistry)
	}
	content, images, err := mirror.Open(w.programs.socket)
	if err != nil {
		return nil, err
	}
	peers := mirror.NewPeers(client, settings.NodeName, port)
	m, err := mirror.New(mirror.Config{Registries: shared, Content: content, Images: images, Peers: peers.List, TLS: show, Log: w.cfg.Log})
	if err != nil {
		return nil, err
	}
	w.cfg.Background("registry peers", peers.Run)
	return m, nil
}
