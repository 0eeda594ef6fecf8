package main

import (
	"context"
	"os"
	"time"

	cadvisor "github.com/google/cadvisor/lib/container/containerd"
	"github.com/spf13/cobra"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics of every component
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's exec and OIDC credentials

	runtime "keelson/node/containerd"
)

func kubeControllerManager() int { return component(controllermanager.NewControllerManagerCommand()) }
func kubeScheduler() int         { return component(scheduler.NewSchedulerCommand()) }
func kubeProxy() int             { return component(proxy.NewProxyCommand()) }

// kubelet has cAdvisor, which is linked in it, ask our containerd which container a cgroup is of: the kubelet has no flag for
// that any more, and without an answer it tells nobody what containers use.
func kubelet() int {
	*cadvisor.ArgContainerdEndpoint = runtime.Socket
	return component(kubeletapp.NewKubeletCommand(context.Background()))
}

// kubeAPIServer looks for another encryption configuration more often than once a minute, upstream's time, which a
// rotation of keys waits out three times (node/reencryption).
func kubeAPIServer() int {
	controller.EncryptionConfigFileChangePollDuration = 2 * time.Second
	return component(apiserver.NewAPIServerCommand())
}

// component runs a daemon's command as upstream's main packages do.
func component(command *cobra.Command) int { return cli.Run(command) }

func kubectl() int {
	// As upstream's main: verbosity is needed before the command exists, for plugins and kuberc.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints, and exits with the code the error asks for
	}
	return 0
}
