package server

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"keelson/node/staticpod"
	"keelson/node/trust"
)

// kubernetesVersion is that of this server's image: the tag of its kube-apiserver. It is empty where the tag is no
// version.
func (s *Server) kubernetesVersion() (string, error) {
	reference, err := s.images.Reference(staticpod.APIServer)
	if err != nil {
		return "", err
	}
	tag := reference[strings.LastIndex(reference, ":")+1:]
	if _, err := version.ParseSemantic(tag); err != nil {
		return "", nil
	}
	return tag, nil
}

// checkVersion refuses to join a cluster whose kube-apiserver is too far from this one's. RKE2 does not tell its version
// in this document, and joins whatever it is.
func (s *Server) checkVersion(settings []byte) error {
	own, err := s.kubernetesVersion()
	if err != nil {
		return err
	}
	var theirs struct{ KubernetesVersion string }
	if err := json.Unmarshal(settings, &theirs); err != nil {
		return fmt.Errorf("read the cluster's version: %w", err)
	}
	if own == "" || theirs.KubernetesVersion == "" {
		return nil
	}
	return trust.ServerVersion(theirs.KubernetesVersion, own)
}
