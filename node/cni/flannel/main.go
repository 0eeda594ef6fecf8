// Flannel is the CNI plugin that turns this node's flannel subnet into a configuration of bridge and host-local and
// delegates to them, as flannel-io's cni-plugin does (its README names the keys and defaults).
//
// It runs anew for every pod, so it links nothing of Kubernetes. Its input is the network configuration that
// containerd passes and the subnet file that flanneld writes; where that is not written yet (a first boot) it waits
// for it instead of failing the pod. It configures no interface itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

// waitForSubnet bounds the wait for flanneld; kubelet gives up on a sandbox later than that and tries again.
const waitForSubnet = 60 * time.Second

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check}, version.All, "flannel: delegate to bridge with flannel's subnet")
}

func add(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitForSubnet)
	defer cancel()
	data, err := awaitFile(ctx, config.SubnetFile)
	if err != nil {
		return fmt.Errorf("wait for flanneld: %w", err)
	}
	env, err := parseSubnet(data)
	if err != nil {
		return fmt.Errorf("parse %s: %w", config.SubnetFile, err)
	}
	kind, delegate, err := config.delegate(env)
	if err != nil {
		return err
	}
	// DEL and CHECK must meet the configuration of ADD, whatever the subnet is by then.
	if err := save(config.record(args.ContainerID), delegate); err != nil {
		return fmt.Errorf("record delegate: %w", err)
	}
	result, err := invoke.DelegateAdd(context.Background(), kind, delegate, nil)
	if err != nil {
		return fmt.Errorf("delegate to %s: %w", kind, err)
	}
	return result.Print()
}

func check(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	kind, delegate, err := config.recorded(args.ContainerID)
	if err != nil {
		return fmt.Errorf("read delegate: %w", err)
	}
	if err := invoke.DelegateCheck(context.Background(), kind, delegate, nil); err != nil {
		return fmt.Errorf("delegate to %s: %w", kind, err)
	}
	return nil
}

func del(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	kind, delegate, err := config.recorded(args.ContainerID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was added, or it is deleted already: DEL succeeds (CNI specification, "DEL")
	}
	if err != nil {
		return fmt.Errorf("read delegate: %w", err)
	}
	if err := invoke.DelegateDel(context.Background(), kind, delegate, nil); err != nil {
		return fmt.Errorf("delegate to %s: %w", kind, err)
	}
	if err := os.Remove(config.record(args.ContainerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}

// recorded reads what ADD delegated.
func (c *config) recorded(container string) (kind string, delegate []byte, err error) {
	delegate, err = os.ReadFile(c.record(container))
	if err != nil {
		return "", nil, err
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(delegate, &head); err != nil {
		return "", nil, fmt.Errorf("parse %s: %w", c.record(container), err)
	}
	return head.Type, delegate, nil
}

// save writes the file whole or not at all: a torn record could never be deleted again.
func save(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	fresh, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name()) // no longer there after the rename
	_, err = fresh.Write(data)
	if err := errors.Join(err, fresh.Sync(), fresh.Close()); err != nil {
		return err
	}
	return os.Rename(fresh.Name(), path)
}
