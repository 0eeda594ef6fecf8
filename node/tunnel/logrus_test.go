package tunnel

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

// TestMain keeps what remotedialer logs out of the output of the tests.
func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	m.Run()
}

func TestAdoptLogrus(t *testing.T) {
	std := logrus.StandardLogger()
	out, level, hooks := std.Out, std.GetLevel(), std.Hooks
	std.ReplaceHooks(logrus.LevelHooks{})
	t.Cleanup(func() {
		std.SetOutput(out)
		std.SetLevel(level)
		std.ReplaceHooks(hooks)
	})
	var buf bytes.Buffer
	AdoptLogrus(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if std.Out != io.Discard {
		t.Error("logrus still writes by itself")
	}
	logrus.WithField("k", "v").Error("it broke")
	logrus.Info("noise")
	got := buf.String()
	for _, want := range []string{"level=DEBUG", `msg="it broke"`, "library=logrus", "level=error", "k=v"} {
		if !strings.Contains(got, want) {
			t.Errorf("log %q lacks %q", got, want)
		}
	}
	if strings.Contains(got, "noise") {
		t.Errorf("log %q holds what is below a warning", got)
	}
}
