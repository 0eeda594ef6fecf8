package scenario

import (
	"regexp"
	"strings"
	"testing"

	"keelson/init/layout"
	"keelson/testvm/console"
	"keelson/testvm/machine"
)

// says waits for a line after a mark. Unlike the machine's own Expect it takes
// no other line for the end: here they are what is expected.
func says(t *testing.T, m *machine.Machine, from console.Mark, pattern string) console.Line {
	t.Helper()
	line, err := m.Console().Wait(within(t, bootLimit), from, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// inOrder checks the end of a boot: everything that was to be stopped did stop
// before the one deadline of the shutdown.
func inOrder(t *testing.T, m *machine.Machine, from console.Mark) {
	t.Helper()
	for _, l := range m.Console().Since(from) {
		if strings.Contains(l.Text, "not done in time") {
			t.Errorf("the shutdown was not in order: %s", l.Text)
		}
	}
}

// verityOf reads the root's verity out of a kernel command line.
func verityOf(t *testing.T, cmdline string) layout.Verity {
	t.Helper()
	for _, word := range strings.Fields(cmdline) {
		if value, ok := strings.CutPrefix(word, layout.ParamVerity+"="); ok {
			v, err := layout.ParseVerity(value)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("command line %q: no %s", cmdline, layout.ParamVerity)
	return layout.Verity{}
}

func TestMistakesArePatterns(t *testing.T) {
	for _, m := range mistakes() {
		if _, err := regexp.Compile(m.want); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}
