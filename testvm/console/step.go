package console

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Step is one line of the boot as PID 1 and node report it.
type Step struct {
	Kind  Kind
	Name  string        // the step or the milestone
	Took  time.Duration // a step: its own duration
	Since time.Duration // complete and milestones: since the kernel's start
	Error string        // a step that failed, or why the boot cannot go on
}

// Kind tells the lines apart.
type Kind int

// The lines that begin with "keelson: ".
const (
	Other     Kind = iota // something else of ours
	Passed                // boot: <name>: ok (<ms> ms)
	Broken                // boot: <name>: <error>
	Complete              // boot: complete in <s> s
	Milestone             // node: <milestone> (<s> s)
	Mistake               // user-data: <source>: line <n>: <key>: <text>
	Waiting               // waiting for corrected user-data
	Halted                // halted: <why>
)

// Prefix begins every line that is meant for a person at the console.
const Prefix = "keelson: "

// BootComplete matches PID 1's last own line.
func BootComplete() *regexp.Regexp { return regexp.MustCompile(`keelson: boot: complete in `) }

// NodeMilestone matches the line of one milestone.
func NodeMilestone(name string) *regexp.Regexp {
	return regexp.MustCompile(`keelson: node: ` + regexp.QuoteMeta(name) + ` \(`)
}

// DeadEnd matches the lines after which a boot does not become a node: the
// machine waits, has halted, or the kernel has given up.
func DeadEnd() *regexp.Regexp {
	return regexp.MustCompile(`keelson: waiting for corrected user-data|keelson: halted: |Kernel panic - not syncing`)
}

// ParseStep reads a line; ok is false for one that is not ours.
func ParseStep(line string) (s Step, ok bool) {
	// The kernel's own message may have been on the line already.
	_, text, ok := strings.Cut(line, Prefix)
	if !ok {
		return Step{}, false
	}
	if name, ms, ok := number(text, "boot: ", ": ok (", " ms)"); ok && name != "" {
		return Step{Kind: Passed, Name: name, Took: scaled(ms, time.Millisecond)}, true
	}
	if name, sec, ok := number(text, "boot: ", "complete in ", " s"); ok && name == "" {
		return Step{Kind: Complete, Name: "complete", Since: scaled(sec, time.Second)}, true
	}
	if name, sec, ok := number(text, "node: ", " (", " s)"); ok && name != "" {
		return Step{Kind: Milestone, Name: name, Since: scaled(sec, time.Second)}, true
	}
	switch {
	case strings.HasPrefix(text, "boot: "):
		name, problem, _ := strings.Cut(strings.TrimPrefix(text, "boot: "), ": ")
		return Step{Kind: Broken, Name: name, Error: problem}, true
	case strings.HasPrefix(text, "user-data: "):
		return Step{Kind: Mistake, Name: "user-data", Error: strings.TrimPrefix(text, "user-data: ")}, true
	case text == "waiting for corrected user-data":
		return Step{Kind: Waiting, Name: text}, true
	case strings.HasPrefix(text, "halted: "):
		return Step{Kind: Halted, Name: "halted", Error: strings.TrimPrefix(text, "halted: ")}, true
	}
	return Step{Kind: Other, Name: text}, true
}

// number takes apart "<prefix><name><infix><decimal number><suffix>".
func number(text, prefix, infix, suffix string) (name string, n float64, ok bool) {
	text, ok = strings.CutPrefix(text, prefix)
	at := strings.LastIndex(text, infix)
	if !ok || at < 0 {
		return "", 0, false
	}
	digits, ok := strings.CutSuffix(text[at+len(infix):], suffix)
	if !ok || digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return "", 0, false
	}
	n, err := strconv.ParseFloat(digits, 64)
	return text[:at], n, err == nil
}

// scaled is n units; what no duration can hold becomes zero.
func scaled(n float64, unit time.Duration) time.Duration {
	if n *= float64(unit); n < float64(1<<63-1) {
		return time.Duration(n)
	}
	return 0
}

// Steps are the boot's steps in lines.
func Steps(lines []Line) []Step {
	var all []Step
	for _, l := range lines {
		if s, ok := ParseStep(l.Text); ok {
			all = append(all, s)
		}
	}
	return all
}
