package containerd

// RenderNetwork returns the CNI configuration for flannel, for NetworkFile. It is written before containerd starts, so
// that the runtime's network is ready at once and the Node with it: our flannel delegate waits, when it adds a pod,
// until the flannel pod has written subnet.env. Portmap serves hostPort, through nftables.
func RenderNetwork() []byte {
	return []byte(`{
  "cniVersion": "1.0.0",
  "name": "cbr0",
  "plugins": [
    {
      "type": "flannel",
      "subnetFile": "/run/flannel/subnet.env",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "backend": "nftables",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`)
}
