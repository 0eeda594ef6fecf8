package cloudprovider

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/wait"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	cliflag "k8s.io/component-base/cli/flag"
)

// Command is the program: upstream's flags and controllers over Provider. --cloud-provider must be rke2;
// --cloud-config is taken for RKE2's sake, whose only settings are those of its service load balancer.
func Command() (*cobra.Command, error) {
	opts, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("make cloud-controller-manager options: %w", err)
	}
	provide := func(*config.CompletedConfig) cloudprovider.Interface { return Provider{} }
	return app.NewCloudControllerManagerCommand(opts, provide, app.DefaultInitFuncConstructors,
		names.CCMControllerAliases(), cliflag.NamedFlagSets{}, wait.NeverStop), nil
}
