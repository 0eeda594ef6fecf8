package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"keelson/node/config"
	"keelson/node/file"
)

// networks are those of the cluster, as this server's part of it runs with them.
type networks struct {
	ClusterCIDR []netip.Prefix `json:"cluster-cidr"`
	ServiceCIDR []netip.Prefix `json:"service-cidr"`
}

func (s *Server) networksPath() string { return s.server("etc", "networks.json") }

// recallNetworks fills networks that the settings leave open with those that this server has had. Without it a machine
// whose DHCP is late one day would be one of IPv6 alone, and take its cluster for one of IPv6.
func (s *Server) recallNetworks(c config.Config) (config.Config, error) {
	if len(c.ClusterCIDR) > 0 || len(c.ServiceCIDR) > 0 {
		return c, nil
	}
	content, err := os.ReadFile(s.networksPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("recall the cluster's networks: %w", err)
	}
	var n networks
	if err := json.Unmarshal(content, &n); err != nil {
		return c, fmt.Errorf("recall the cluster's networks: %s: %w; remove the file, or set cluster-cidr and service-cidr", s.networksPath(), err)
	}
	c.ClusterCIDR, c.ServiceCIDR = n.ClusterCIDR, n.ServiceCIDR
	return c, nil
}

// rememberNetworks does so once this server has its part of the cluster's record: what it started with was right.
func (s *Server) rememberNetworks(context.Context) error {
	content, err := json.Marshal(networks{s.settings.ClusterCIDR, s.settings.ServiceCIDR})
	if err != nil {
		return fmt.Errorf("remember the cluster's networks: %w", err)
	}
	_, err = file.Ensure(s.networksPath(), append(content, '\n'), 0o600)
	return err
}
