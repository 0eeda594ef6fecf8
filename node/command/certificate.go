package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/certificate"
	"keelson/node/config"
)

const certificateUsage = `usage: node certificate <verb> [flags]

  check [-o text|json] [--data-dir DIR]
                              when each certificate of this machine ends
  rotate-ca [--path DIR] [--force] [--server URL] [--token-file FILE]
                              replace the cluster's authorities by those of DIR, or by new ones that the present ones sign
`

// certificates runs `node certificate`.
func certificates(ctx context.Context, args []string, now time.Time, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("certificate: a verb is needed: %s", strings.TrimSpace(certificateUsage))
	}
	flags := flag.NewFlagSet("certificate "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	dataDir := flags.String("data-dir", config.Default().DataDir, "RKE2's folder")
	switch args[0] {
	case "check":
		output := flags.String("o", "text", "output: text or json")
		if err := flags.Parse(args[1:]); err != nil {
			return fmt.Errorf("certificate check: %w", err)
		}
		all, err := certificate.Look(*dataDir, now)
		if err != nil {
			return err
		}
		text, err := certificate.Render(all, *output)
		if err == nil {
			_, err = stdout.Write(text)
		}
		return err
	case "rotate-ca":
		r := rotation{operator: operator{stderr: stderr}, stdout: stdout, now: now}
		flags.StringVar(&r.path, "path", "", "folder of the new authorities; without it they are made")
		flags.BoolVar(&r.force, "force", false, "take authorities whose chains do not lead to the present ones")
		flags.StringVar(&r.server, "server", localServer, "a server of the cluster")
		flags.StringVar(&r.tokenFile, "token-file", "", "file with the server token; without it the machine's own")
		if err := flags.Parse(args[1:]); err != nil {
			return fmt.Errorf("certificate rotate-ca: %w", err)
		}
		r.dataDir = *dataDir
		return r.run(ctx)
	}
	return fmt.Errorf("certificate: unknown verb %q: %s", args[0], strings.TrimSpace(certificateUsage))
}

// rotation is one `node certificate rotate-ca`.
type rotation struct {
	operator
	path   string
	force  bool
	stdout io.Writer
	now    time.Time
}

func (r rotation) run(ctx context.Context) error {
	access, err := r.operator.access(ctx)
	if err != nil {
		return err
	}
	var next bootstrapdata.Data
	if r.path != "" {
		next, err = certificate.LoadAuthorities(r.path)
	} else {
		next, err = certificate.MakeAuthorities(ctx, access, r.now)
	}
	if err != nil {
		return err
	}
	if err := certificate.Rotate(ctx, access, next, r.force); err != nil {
		return err
	}
	fmt.Fprintln(r.stdout, "the cluster has its new authorities; its servers issue their certificates anew one after the other.\n"+
		"Tokens name an authority: copy the new one from /var/lib/rancher/rke2/server/token for machines that will join.")
	return nil
}
