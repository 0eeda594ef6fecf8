// Package cloudprovider is the cloud-controller-manager of a cluster without a cloud: Kubernetes' own controllers
// over a provider named rke2 that knows of a node what the node says of itself in annotations.
//
// It sets node addresses and provider IDs, and by that removes the taint with which kubelet registers a node under
// --cloud-provider=external. It has no routes, no zones and no load balancers, and calls nothing but the apiserver.
// The annotations come from node, on each machine; the bundle runs it as one of its programs.
package cloudprovider

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
)

// Name is the provider's name in --cloud-provider and in provider IDs, which k3s and RKE2 set to their program's name
// (k3s pkg/cloudprovider).
const Name = "rke2"

// Annotations by which a node tells its addresses; each may hold several, separated by commas (k3s
// pkg/cloudprovider/instances.go, RKE2's prefix).
const (
	InternalIPAnnotation  = "rke2.io/internal-ip"
	ExternalIPAnnotation  = "rke2.io/external-ip"
	InternalDNSAnnotation = "rke2.io/internal-dns"
	ExternalDNSAnnotation = "rke2.io/external-dns"
	HostnameAnnotation    = "rke2.io/hostname"
)

// Provider implements cloud-provider's Interface and InstancesV2.
type Provider struct{}

// Initialize has nothing to set up.
func (Provider) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}

// LoadBalancer says that there is none.
func (Provider) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return nil, false }

// Instances says that the older interface is not there.
func (Provider) Instances() (cloudprovider.Instances, bool) { return nil, false }

// InstancesV2 is the provider itself.
func (p Provider) InstancesV2() (cloudprovider.InstancesV2, bool) { return p, true }

// Zones says that there are none.
func (Provider) Zones() (cloudprovider.Zones, bool) { return nil, false }

// Clusters says that there are none.
func (Provider) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

// Routes says that there are none; the CNI has its own.
func (Provider) Routes() (cloudprovider.Routes, bool) { return nil, false }

// ProviderName is Name.
func (Provider) ProviderName() string { return Name }

// HasClusterID is asked by the controllers before they start.
func (Provider) HasClusterID() bool { return true }

// InstanceExists is true of every node that is asked about: the machine exists while its Node object does.
func (Provider) InstanceExists(context.Context, *v1.Node) (bool, error) { return true, nil }

// InstanceShutdown is never true: nobody but the machine knows.
func (Provider) InstanceShutdown(context.Context, *v1.Node) (bool, error) { return false, nil }

// InstanceMetadata reads the node's annotations.
func (Provider) InstanceMetadata(_ context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	if strings.Trim(node.Annotations[InternalIPAnnotation], ", ") == "" {
		// The controller asks again when the node changes.
		return nil, fmt.Errorf("read addresses of node %s: annotation %s is not set yet", node.Name, InternalIPAnnotation)
	}
	kinds := []struct {
		annotation string
		kind       v1.NodeAddressType
	}{
		{InternalIPAnnotation, v1.NodeInternalIP},
		{ExternalIPAnnotation, v1.NodeExternalIP},
		{InternalDNSAnnotation, v1.NodeInternalDNS},
		{ExternalDNSAnnotation, v1.NodeExternalDNS},
		{HostnameAnnotation, v1.NodeHostName},
	}
	metadata := &cloudprovider.InstanceMetadata{ProviderID: Name + "://" + node.Name, InstanceType: Name}
	for _, k := range kinds {
		for _, address := range strings.Split(node.Annotations[k.annotation], ",") {
			if address = strings.TrimSpace(address); address != "" {
				metadata.NodeAddresses = append(metadata.NodeAddresses, v1.NodeAddress{Type: k.kind, Address: address})
			}
		}
	}
	return metadata, nil
}
