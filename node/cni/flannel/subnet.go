package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// subnet is what flanneld writes into the subnet file (flannel pkg/subnet, WriteSubnetFile).
type subnet struct {
	networks    []netip.Prefix // the cluster's, IPv4 first
	subnets     []netip.Prefix // this node's
	mtu         int
	masquerades bool
}

func parseSubnet(data []byte) (subnet, error) {
	var s subnet
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok {
			continue
		}
		var err error
		switch key {
		case "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK":
			s.networks, err = appendPrefixes(s.networks, value)
		case "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET":
			s.subnets, err = appendPrefixes(s.subnets, value)
		case "FLANNEL_MTU":
			if s.mtu, err = strconv.Atoi(value); err == nil && s.mtu <= 0 {
				err = errors.New("not above 0")
			}
		case "FLANNEL_IPMASQ":
			s.masquerades, err = strconv.ParseBool(value)
		}
		if err != nil {
			return subnet{}, fmt.Errorf("line %d: %s: %w", n, key, err)
		}
	}
	if err := lines.Err(); err != nil {
		return subnet{}, err
	}
	if len(s.networks) == 0 || len(s.subnets) == 0 || s.mtu == 0 {
		return subnet{}, errors.New("FLANNEL_NETWORK, FLANNEL_SUBNET (or their IPV6 kind) and FLANNEL_MTU must be there")
	}
	return s, nil
}

func appendPrefixes(all []netip.Prefix, list string) ([]netip.Prefix, error) {
	for _, text := range strings.Split(list, ",") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		all = append(all, prefix)
	}
	return all, nil
}

// awaitFile reads the file as soon as it is there. flanneld renames it into place, so that what is there is whole.
func awaitFile(ctx context.Context, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	defer watcher.Close()
	if err := watcher.Add(dir); err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	for {
		// Read after the watch is set: what came before it made no event.
		data, err := os.ReadFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
		select {
		case <-watcher.Events:
		case err := <-watcher.Errors:
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is not there: %w", path, ctx.Err())
		}
	}
}
