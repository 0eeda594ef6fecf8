package kube

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Report leaves in dir what the API says within a few seconds: nodes, pods, events, Services and their endpoints.
func (c *Client) Report(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var errs []error
	keep := func(name string, list any, err error) {
		if err == nil {
			var data []byte
			if data, err = json.MarshalIndent(list, "", " "); err == nil {
				err = os.WriteFile(filepath.Join(dir, name+".json"), data, 0o644)
			}
		}
		errs = append(errs, err)
	}
	nodes, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	keep("nodes", nodes, err)
	pods, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	keep("pods", pods, err)
	events, err := c.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	keep("events", events, err)
	services, err := c.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	keep("services", services, err)
	endpoints, err := c.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{})
	keep("endpoints", endpoints, err)
	return errors.Join(errs...)
}
