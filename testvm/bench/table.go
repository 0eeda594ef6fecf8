package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes the table, and where the time of the median boot goes.
func (r *Result) Print(w io.Writer) error {
	if r.Accel == "" { // no machine was started
		fmt.Fprintf(w, "host with %d CPUs\n\n", r.HostCPUs)
	} else {
		fmt.Fprintf(w, "%d CPUs, %d MiB, accelerator %s, host with %d CPUs\n\n", r.CPUs, r.MiB, r.Accel, r.HostCPUs)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tmedian\tlimit\truns\t")
	for _, n := range r.Numbers {
		limit, verdict := "", ""
		if n.Limit > 0 {
			limit = fmt.Sprintf("%.4g %s", n.Limit, n.Unit)
			if n.Median > n.Limit {
				verdict = "over"
			}
		}
		if n.AtLeast > 0 {
			limit = strings.TrimSpace(fmt.Sprintf(">= %.4g %s", n.AtLeast, n.Unit))
			if n.Median < n.AtLeast {
				verdict = "under"
			}
		}
		fmt.Fprintf(t, "%s\t%.2f %s\t%s\t%d\t%s\n", n.Name, n.Median, n.Unit, limit, n.Runs, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if n := r.disturbed(); n > 0 {
		fmt.Fprintf(w, "\n%d of %d runs were disturbed: the host did more than a tenth of its work for others.\nTheir times are worth little; measure again on a quiet host.\n", n, len(r.Boots))
	}
	if boot, ok := r.medianBoot(); ok {
		fmt.Fprintf(w, "\nthe boot that took %.1f s, from power-on:\n", boot.Ready)
		for _, s := range boot.ordered() {
			fmt.Fprintf(w, "  %7.2f s  %s\n", boot.Timeline[s], s)
		}
	}
	return nil
}

// medianBoot is the one that took the median time, or the next longer.
func (r *Result) medianBoot() (Boot, bool) {
	if len(r.Boots) == 0 {
		return Boot{}, false
	}
	s := slices.SortedFunc(slices.Values(r.Boots), func(a, b Boot) int {
		if a.Ready < b.Ready {
			return -1
		}
		return 1
	})
	return s[len(s)/2], true
}

// ordered are the timeline's names by time.
func (b Boot) ordered() []string {
	var names []string
	for name := range b.Timeline {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		switch dx, dy := b.Timeline[x], b.Timeline[y]; {
		case dx < dy:
			return -1
		case dx > dy:
			return 1
		case x < y:
			return -1
		}
		return 1
	})
	return names
}

// Keep writes the result as JSON.
func (r *Result) Keep(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("keep measurements: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep measurements: %w", err)
	}
	return nil
}
