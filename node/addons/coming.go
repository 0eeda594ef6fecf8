package addons

import (
	"bytes"
	"context"
)

// early tells whether a file has to wait for its kinds.
func (c *Controller) early(content []byte) bool {
	for group, served := range c.cfg.Coming {
		if !bytes.Contains(content, []byte(group+"/")) {
			continue
		}
		select {
		case <-served:
		default:
			return true
		}
	}
	return false
}

// come has everything looked at again when kinds are served that files wait for.
func (c *Controller) come(ctx context.Context) <-chan struct{} {
	come := make(chan struct{}, len(c.cfg.Coming))
	for _, served := range c.cfg.Coming {
		go func() {
			select {
			case <-ctx.Done():
			case <-served:
				come <- struct{}{}
			}
		}()
	}
	return come
}
