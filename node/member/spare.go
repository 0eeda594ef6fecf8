package member

import (
	"context"
	"fmt"
)

// Spare returns nil if etcd goes on while this member is away: a majority of all that vote answers without it. A member
// of one or two is never spared by the others, and may go all the same: nothing can be waited for.
func Spare(ctx context.Context, c Config) error {
	own := c.askOne(ctx, c.endpoint())
	if own.err != nil {
		return fmt.Errorf("tell whether etcd goes on without this member: %w", own.err)
	}
	voters, up := 0, 0
	for _, m := range own.members {
		if !m.IsLearner {
			voters++
		}
	}
	if voters <= 2 {
		return nil
	}
	for _, a := range c.askAll(ctx, clientURLs(own.members, own.self)) {
		if a.err == nil {
			up++
		}
	}
	if up < voters/2+1 {
		return fmt.Errorf("%d of the %d other members of etcd answer: it would stand still without this one", up, voters-1)
	}
	return nil
}
