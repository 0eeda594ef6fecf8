package console

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestParseStep(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       Step
	}{
		{"a step", "keelson: boot: mount state: ok (123 ms)", Step{Kind: Passed, Name: "mount state", Took: 123 * time.Millisecond}},
		{"behind the kernel's words", "[    2.1] random: crng initkeelson: boot: clock: ok (1.5 ms)", Step{Kind: Passed, Name: "clock", Took: 1500 * time.Microsecond}},
		{"a step that failed", "keelson: boot: mount root: verity: root hash differs", Step{Kind: Broken, Name: "mount root", Error: "verity: root hash differs"}},
		{"the end", "keelson: boot: complete in 3.214 s", Step{Kind: Complete, Name: "complete", Since: 3214 * time.Millisecond}},
		{"a milestone", "keelson: node: system pods Ready (61.2 s)", Step{Kind: Milestone, Name: "system pods Ready", Since: 61200 * time.Millisecond}},
		{"a mistake", "keelson: user-data: cidata: line 4: rke2.tokn: unknown key", Step{Kind: Mistake, Name: "user-data", Error: "cidata: line 4: rke2.tokn: unknown key"}},
		{"waiting", "keelson: waiting for corrected user-data", Step{Kind: Waiting, Name: "waiting for corrected user-data"}},
		{"halted", "keelson: halted: no root", Step{Kind: Halted, Name: "halted", Error: "no root"}},
		{"something else of ours", "keelson: clock set", Step{Kind: Other, Name: "clock set"}},
		{"a number that is no duration", "keelson: boot: complete in " + strings.Repeat("9", 40) + " s", Step{Kind: Complete, Name: "complete"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := ParseStep(c.line); !ok || got != c.want {
				t.Errorf("ParseStep: got %+v, %v, want %+v", got, ok, c.want)
			}
		})
	}
	if s, ok := ParseStep("Linux version 6.12"); ok {
		t.Errorf("the kernel's line: got %+v, want none of ours", s)
	}
}

func TestStepsOfABoot(t *testing.T) {
	con := New(io.Discard)
	boot := "SeaBIOS\nkeelson: boot: modules: ok (5 ms)\nnoise\nkeelson: boot: complete in 1.0 s\n"
	if err := con.Run(strings.NewReader(boot)); err != nil {
		t.Fatal(err)
	}
	steps := Steps(con.Since(0))
	if len(steps) != 2 || steps[0].Name != "modules" || steps[1].Kind != Complete {
		t.Errorf("steps: got %+v, want modules and the end", steps)
	}
}

func TestExpectations(t *testing.T) {
	if !BootComplete().MatchString("keelson: boot: complete in 2.000 s") {
		t.Error("BootComplete does not match its line")
	}
	if !NodeMilestone("node Ready").MatchString("keelson: node: node Ready (40.1 s)") || NodeMilestone("node Ready").MatchString("keelson: node: node Ready soon") {
		t.Error("NodeMilestone: wrong match")
	}
	for _, l := range []string{"keelson: waiting for corrected user-data", "keelson: halted: why", "[ 1.0] Kernel panic - not syncing: VFS"} {
		if !DeadEnd().MatchString(l) {
			t.Errorf("DeadEnd does not match %q", l)
		}
	}
}

func FuzzParseStep(f *testing.F) {
	f.Add("keelson: boot: mount state: ok (123 ms)")
	f.Add("keelson: node: a (b) (1 s)")
	f.Add("keelson: boot: : ")
	f.Fuzz(func(t *testing.T, line string) {
		s, ok := ParseStep(line)
		if ok != strings.Contains(line, Prefix) {
			t.Errorf("%q: got ok %v", line, ok)
		}
		if s.Took < 0 || s.Since < 0 {
			t.Errorf("%q: negative duration in %+v", line, s)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[0mhello\x1b]x\x07\r")
	f.Fuzz(func(t *testing.T, s string) {
		if got := clean(s); strings.ContainsAny(got, "\x1b\r\x07") || clean(got) != got {
			t.Errorf("clean(%q): got %q", s, got)
		}
	})
}
