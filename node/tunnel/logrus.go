package tunnel

import (
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// AdoptLogrus sends what libraries write with logrus, which has one logger for the whole process, to log: warnings and
// worse, at debug level, for remotedialer logs at error level what its caller is told anyway. Only main calls it, once,
// for it changes that logger.
func AdoptLogrus(log *slog.Logger) {
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.WarnLevel)
	logrus.AddHook(hook{log})
}

type hook struct{ log *slog.Logger }

// Levels implements logrus.Hook.
func (hook) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

// Fire implements logrus.Hook.
func (h hook) Fire(e *logrus.Entry) error {
	args := []any{"library", "logrus", "level", e.Level.String()}
	for key, value := range e.Data {
		args = append(args, key, value)
	}
	h.log.Debug(e.Message, args...)
	return nil
}
