package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// retryRefused is how soon a socket that refuses is asked again. Its file appears with bind, a moment before listen,
// and of listen there is no event.
const retryRefused = 10 * time.Millisecond

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
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		var again <-chan time.Time
		if errors.Is(err, syscall.ECONNREFUSED) {
			again = time.After(retryRefused)
		}
		select {
		case <-again:
		case <-ctx.Done():
			return fmt.Errorf("wait for containerd on %s: %w", socket, context.Cause(ctx))
		case err := <-watch.Errors:
			return fmt.Errorf("wait for containerd: watch %s: %w", dir, err)
		case <-watch.Events:
		}
	}
}
