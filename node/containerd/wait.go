package containerd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Wait returns once something accepts connections on the socket. It is woken by the socket's appearance in its folder,
// which it makes if need be; a socket file that a dead daemon left is not taken for a living one.
func Wait(ctx context.Context, socket string) error {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	defer watch.Close()
	if err := watch.Add(dir); err != nil {
		return fmt.Errorf("wait for containerd: watch %s: %w", dir, err)
	}
	var dialer net.Dialer
	for {
		if conn, err := dialer.DialContext(ctx, "unix", socket); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for containerd on %s: %w", socket, context.Cause(ctx))
		case err := <-watch.Errors:
			return fmt.Errorf("wait for containerd: watch %s: %w", dir, err)
		case <-watch.Events:
		}
	}
}
