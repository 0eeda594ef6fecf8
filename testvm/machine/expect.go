package machine

import (
	"context"
	"fmt"
	"regexp"

	"keelson/testvm/console"
)

// Expect waits for a line of the present boot that matches pattern. A line
// after which the boot does not become a node ends the wait early, unless it is
// what is expected.
func (m *Machine) Expect(ctx context.Context, pattern string) (console.Line, error) {
	want, err := regexp.Compile(pattern)
	if err != nil {
		return console.Line{}, fmt.Errorf("expect on the console: %w", err)
	}
	line, err := m.console.Wait(ctx, m.mark, want, console.DeadEnd())
	if err != nil {
		return line, err
	}
	if !want.MatchString(line.Text) {
		return line, fmt.Errorf("expect `%s` on the console: the boot came to its end with %q; its last lines:\n%s", pattern, line.Text, m.console.Tail(30))
	}
	return line, nil
}

// Milestone waits for one of the node's milestones in the present boot.
func (m *Machine) Milestone(ctx context.Context, name string) (console.Line, error) {
	return m.Expect(ctx, console.NodeMilestone(name).String())
}
