package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

// config is the plugin's network configuration.
type config struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	SubnetFile    string          `json:"subnetFile"`
	DataDir       string          `json:"dataDir"`
	Delegate      map[string]any  `json:"delegate"`
	IPAM          map[string]any  `json:"ipam"`
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
}

func parseConfig(data []byte) (*config, error) {
	c := &config{SubnetFile: "/run/flannel/subnet.env", DataDir: "/var/lib/cni/flannel"}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("parse network configuration: %w", err)
	}
	if c.Name == "" {
		return nil, fmt.Errorf(`parse network configuration: "name" is missing`)
	}
	for _, key := range []string{"name", "ipam"} {
		if _, ok := c.Delegate[key]; ok {
			return nil, fmt.Errorf("parse network configuration: %q must not be in delegate, it is set from flannel's subnet", key)
		}
	}
	if kind, ok := c.Delegate["type"]; ok {
		if name, ok := kind.(string); !ok || name == "" || name != filepath.Base(name) {
			return nil, fmt.Errorf(`parse network configuration: delegate's "type" must be the name of a plugin, not %v`, kind)
		}
	}
	return c, nil
}

// record is the file that remembers what was delegated for a container.
func (c *config) record(container string) string {
	return filepath.Join(c.DataDir, filepath.Base(container))
}

// delegate renders the configuration of the plugin that does the work: what the administrator set in delegate, and
// what flannel knows where that is silent.
func (c *config) delegate(env subnet) (kind string, data []byte, err error) {
	d := map[string]any{}
	for key, value := range c.Delegate {
		d[key] = value
	}
	silent := func(key string, value any) {
		if _, ok := d[key]; !ok {
			d[key] = value
		}
	}
	d["name"] = c.Name
	if c.CNIVersion != "" {
		d["cniVersion"] = c.CNIVersion
	}
	if len(c.RuntimeConfig) > 0 {
		d["runtimeConfig"] = c.RuntimeConfig
	}
	silent("type", "bridge")
	// Either flanneld masquerades or the bridge does.
	silent("ipMasq", !env.masquerades)
	silent("mtu", env.mtu)
	if d["type"] == "bridge" {
		silent("isGateway", true)
	}
	d["ipam"] = c.ipam(env)
	data, err = json.Marshal(d)
	if err != nil {
		return "", nil, fmt.Errorf("render delegate: %w", err)
	}
	return d["type"].(string), data, nil
}

// ipam lets host-local give addresses of this node's subnets, and adds routes to the whole network.
func (c *config) ipam(env subnet) map[string]any {
	ipam := map[string]any{}
	for key, value := range c.IPAM {
		ipam[key] = value
	}
	var ranges [][]map[string]string
	for _, s := range env.subnets {
		ranges = append(ranges, []map[string]string{{"subnet": s.Masked().String()}})
	}
	routes, _ := ipam["routes"].([]any)
	for _, n := range env.networks {
		routes = append(routes, map[string]string{"dst": n.Masked().String()})
	}
	ipam["type"], ipam["ranges"], ipam["routes"] = "host-local", ranges, routes
	return ipam
}
