package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"keelson/node/config"
	"keelson/node/status"
)

// statusVerb runs `node status`: the supervisor's own words while it runs, and what the files say while it does not.
func statusVerb(ctx context.Context, args []string, version string, now time.Time, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var output string
	for _, name := range []string{"output", "o"} {
		flags.StringVar(&output, name, "text", "text or json")
	}
	socket := flags.String("socket", status.DefaultSocket, "where the supervisor tells")
	file := flags.String("config", configFile, "configuration file, where the supervisor does not run")
	if _, err := parse(flags, args, 0); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if _, err := status.Render(status.Report{}, output); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	r, err := status.Ask(ctx, *socket)
	if errors.Is(err, status.ErrStopped) {
		r, err = stopped(*file, version, now), nil
	}
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	text, err := status.Render(r, output)
	if err == nil {
		_, err = stdout.Write(text)
	}
	return err
}

// stopped is what the files say. Settings that cannot be read may be why nothing runs; RKE2's places are looked at then.
func stopped(file, version string, now time.Time) status.Report {
	f := status.Files{DataDir: config.Default().DataDir, Version: version, Notes: status.DefaultNotes, Idle: true}
	settings, _, err := config.LoadAgent(file) // the least that every role's settings must hold
	if err == nil {
		f.DataDir = settings.DataDir
		if f.Role = f.LastRole(); f.Role == status.Server {
			settings, err = config.Load(file)
		}
	}
	if err == nil {
		f.Settings = &settings
	}
	r := f.Report(now)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	r.Conclude()
	return r
}
