package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"keelson/node/status"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
)

// pauses are how long is waited between tries. What passes by itself (a server that is starting) is tried often: at
// first next to at once, since machines of a new cluster start together. What somebody has to mend (a wrong token) is
// tried rarely, for servers count failures, but tried: the mistake may be the server's.
type pauses struct{ first, most, mending time.Duration }

func defaultPauses() pauses { return pauses{200 * time.Millisecond, 5 * time.Second, 15 * time.Second} }

// persist tries until it succeeds, ctx ends, or only this machine's settings could mend the error. Each reason to wait
// stands on the console once.
func (a *Agent) persist(ctx context.Context, what string, try func(context.Context) error) error {
	said := map[string]bool{}
	port := regexp.MustCompile(`:\d+->`) // our end of a connection is another each time
	for pause := a.pauses.first; ; pause = min(2*pause, a.pauses.most) {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if isFinal(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		status.Reason(ctx, err)
		text := err.Error()
		if reason := port.ReplaceAllString(text, ":->"); !said[reason] {
			if len(said) == 64 {
				clear(said)
			}
			said[reason] = true
			a.log.Warn("waiting", "for", what, "error", err)
			a.console("waiting: " + what + ": " + text)
		}
		wait := pause/2 + rand.N(pause)
		if !isPassing(err) {
			wait = a.pauses.mending
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), err)
		case <-timer.C:
		}
	}
}

// errSettings is an error that only other settings of this machine can mend.
var errSettings = errors.New("settings")

func isFinal(err error) bool {
	return errors.Is(err, errSettings) || errors.Is(err, trust.ErrAddress) || errors.Is(err, trust.ErrToken) || errors.Is(err, trust.ErrHashRequired)
}

// errPassing is an error that passes by itself.
var errPassing = errors.New("passing")

func isPassing(err error) bool {
	for _, kind := range []error{errPassing, supervisorclient.ErrNotReady, supervisorclient.ErrBusy, supervisorclient.ErrUnreachable} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return trust.Passing(err)
}

// marked gives an error a kind without a word more.
type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.error, m.kind} }
