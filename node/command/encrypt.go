package command

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"keelson/node/config"
	"keelson/node/encryption"
	"keelson/node/reencryption"
)

const encryptUsage = `usage: node secrets-encrypt <verb> [flags]

  status [-o text|json]       how Secrets are encrypted at rest, and whether all servers agree
  rotate-keys                 a new key, every Secret written with it, the old key dropped; asked for again, it goes on
                              from where it was cut off
  prepare, rotate, reencrypt  the same in three steps
  enable, disable             write all Secrets encrypted, or all in plain

All take --server URL, --token-file FILE and --data-dir DIR; prepare, rotate and reencrypt take --force (whatever the
stage), reencrypt takes --skip (keep the old key).
`

// encrypt is one `node secrets-encrypt`.
type encrypt struct {
	stdout, stderr             io.Writer
	dataDir, server, tokenFile string
	output                     string
	request                    reencryption.Request
}

// secretsEncrypt runs `node secrets-encrypt`.
func secretsEncrypt(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("secrets-encrypt: a verb is needed\n\n%s", encryptUsage)
	}
	e := &encrypt{stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("secrets-encrypt "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	for _, name := range []string{"data-dir", "d"} {
		flags.StringVar(&e.dataDir, name, config.Default().DataDir, "RKE2's folder")
	}
	for _, name := range []string{"server", "s"} {
		flags.StringVar(&e.server, name, localServer, "a server of the cluster")
	}
	flags.StringVar(&e.tokenFile, "token-file", "", "file with the server token; without it this machine's own")
	stage := func(s encryption.Stage) *encryption.Stage { return &s }
	enable := func(b bool) *bool { return &b }
	force := func() {
		for _, name := range []string{"force", "f"} {
			flags.BoolVar(&e.request.Force, name, false, "whatever the stage")
		}
	}
	switch args[0] {
	case "status":
		for _, name := range []string{"output", "o"} {
			flags.StringVar(&e.output, name, "text", "text or json")
		}
	case "enable", "disable":
		e.request.Enable = enable(args[0] == "enable")
	case "prepare":
		e.request.Stage = stage(encryption.Prepare)
		force()
	case "rotate":
		e.request.Stage = stage(encryption.Rotate)
		force()
	case "reencrypt":
		e.request.Stage = stage(encryption.Active)
		force()
		flags.BoolVar(&e.request.Skip, "skip", false, "keep the old key")
	case "rotate-keys":
		e.request.Stage = stage(encryption.RotateKeys)
	default:
		return fmt.Errorf("secrets-encrypt: unknown verb %q\n\n%s", args[0], encryptUsage)
	}
	if _, err := parse(flags, args[1:], 0); err != nil {
		return fmt.Errorf("secrets-encrypt %s: %w", args[0], err)
	}
	if err := e.run(ctx); err != nil {
		return fmt.Errorf("secrets-encrypt %s: %w", args[0], err)
	}
	return nil
}

func (e *encrypt) run(ctx context.Context) error {
	if e.output != "" && e.output != "text" && e.output != "json" {
		return fmt.Errorf("output %q is neither text nor json", e.output)
	}
	access, err := operator{dataDir: e.dataDir, server: e.server, tokenFile: e.tokenFile, stderr: e.stderr}.access(ctx)
	if err != nil {
		return err
	}
	if e.output != "" {
		status, err := reencryption.Ask(ctx, access)
		if err != nil {
			return err
		}
		return writeStatus(e.stdout, status, e.output)
	}
	status, err := e.request.Request(ctx, access)
	if err != nil {
		return err
	}
	return writeStatus(e.stdout, status, "text")
}

// writeStatus prints RKE2's table, or the JSON as the server has it.
func writeStatus(w io.Writer, s reencryption.Status, form string) error {
	if form == "json" {
		out, err := json.Marshal(s)
		if err == nil {
			_, err = fmt.Fprintln(w, string(out))
		}
		return err
	}
	enabled := "Disabled"
	if s.Enable != nil && *s.Enable {
		enabled = "Enabled"
	}
	fmt.Fprintf(w, "Encryption Status: %s\nCurrent Rotation Stage: %s\n", enabled, s.Stage)
	if s.HashMatch {
		fmt.Fprint(w, "Server Encryption Hashes: All hashes match\n")
	} else {
		fmt.Fprintf(w, "Server Encryption Hashes: %s\n", s.HashError)
	}
	if p := s.Keelson; p.Running || p.Error != "" {
		fmt.Fprintf(w, "Last change: %s, running: %t, Secrets written: %d %s\n", p.Change, p.Running, p.Done, p.Error)
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "Active\tKey Type\tName\n------\t--------\t----\n")
	row := func(mark, key string) {
		kind, name, _ := strings.Cut(key, " ")
		fmt.Fprintf(table, "%s\t%s\t%s\n", mark, kind, name)
	}
	if s.ActiveKey != "" {
		row(" *", s.ActiveKey)
	}
	for _, k := range s.InactiveKeys {
		row("", k)
	}
	return table.Flush()
}
