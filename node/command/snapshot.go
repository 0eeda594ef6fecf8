package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"sigs.k8s.io/yaml"

	"keelson/node/config"
	"keelson/node/etcdsnapshot"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
)

const snapshotUsage = `usage: node etcd-snapshot <verb> [flags]

  save [--name PREFIX]        take a snapshot of this server's etcd
  list                        list this server's snapshots, and those of the object store
  delete NAME...              delete snapshots
  prune [--name PREFIX] [--snapshot-retention N]
                              delete all but the newest

flags of all: [-o text|json|yaml] [--data-dir DIR] [--server URL] [--token-file FILE] [--dir DIR] [--s3 --s3-bucket BUCKET ...]
`

// snapshotCommand is one `node etcd-snapshot` as its arguments ask for it.
type snapshotCommand struct {
	request                            etcdsnapshot.Request
	output, dataDir, server, tokenFile string
}

// snapshots runs `node etcd-snapshot`: the local supervisor does the work, so that it is done once at a time.
func snapshots(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parseSnapshot(args, stderr)
	if err != nil {
		return err
	}
	access, err := operator{dataDir: c.dataDir, server: c.server, tokenFile: c.tokenFile, stderr: stderr}.access(ctx)
	if err != nil {
		return fmt.Errorf("etcd-snapshot %s: %w", c.request.Operation, err)
	}
	answer, err := c.ask(ctx, access)
	if err != nil {
		return fmt.Errorf("etcd-snapshot %s: %w", c.request.Operation, err)
	}
	return c.print(stdout, answer)
}

// parseSnapshot reads the arguments. Each flag has RKE2's two names. What is not set is the server's own setting.
func parseSnapshot(args []string, stderr io.Writer) (snapshotCommand, error) {
	var c snapshotCommand
	if len(args) == 0 {
		return c, fmt.Errorf("etcd-snapshot: a verb is needed\n\n%s", snapshotUsage)
	}
	verb := args[0]
	switch verb {
	case "ls":
		verb = etcdsnapshot.OperationList
	case etcdsnapshot.OperationSave, etcdsnapshot.OperationList, etcdsnapshot.OperationDelete, etcdsnapshot.OperationPrune:
	default:
		return c, fmt.Errorf("etcd-snapshot: unknown verb %q\n\n%s", verb, snapshotUsage)
	}
	c.request.Operation = verb
	flags := flag.NewFlagSet("etcd-snapshot "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	text := func(field *string, value, doc string, names ...string) {
		for _, name := range names {
			flags.StringVar(field, name, value, doc)
		}
	}
	var prefix, dir string
	var compress, remote bool
	var retention int
	var s3 etcdsnapshot.S3Config
	text(&c.output, "text", "output: text, json or yaml", "o", "output")
	text(&c.dataDir, config.Default().DataDir, "RKE2's folder", "data-dir", "d")
	text(&c.server, localServer, "the server that does it", "server", "s", "etcd-server")
	text(&c.tokenFile, "", "file with the server token; without it the machine's own", "token-file", "etcd-token-file")
	text(&prefix, "", "what the names begin with", "name", "etcd-snapshot-name")
	text(&dir, "", "folder of snapshots", "dir", "etcd-snapshot-dir")
	for _, name := range []string{"snapshot-compress", "etcd-snapshot-compress"} {
		flags.BoolVar(&compress, name, false, "compress the snapshot")
	}
	for _, name := range []string{"snapshot-retention", "etcd-snapshot-retention"} {
		flags.IntVar(&retention, name, 0, "how many to keep; 0 keeps all")
	}
	for _, name := range []string{"s3", "etcd-s3"} {
		flags.BoolVar(&remote, name, false, "use the object store that the following flags name")
	}
	secret := func(field *config.Secret, name, doc string) {
		for _, prefix := range []string{"s3-", "etcd-s3-"} {
			flags.Func(prefix+name, doc, func(value string) error { *field = config.Secret(value); return nil })
		}
	}
	object := func(field *string, name, doc string) { text(field, "", doc, "s3-"+name, "etcd-s3-"+name) }
	object(&s3.Endpoint, "endpoint", "host or host:port")
	object(&s3.EndpointCA, "endpoint-ca", "authority of the endpoint: file, or base64 of PEM")
	object(&s3.AccessKey, "access-key", "access key")
	secret(&s3.SecretKey, "secret-key", "secret key")
	secret(&s3.SessionToken, "session-token", "session token")
	object(&s3.Bucket, "bucket", "bucket")
	object(&s3.BucketLookup, "bucket-lookup-type", "auto, dns or path")
	object(&s3.Region, "region", "region")
	object(&s3.Folder, "folder", "folder in the bucket")
	object(&s3.Proxy, "proxy", "proxy to the endpoint")
	object(&s3.ConfigSecret, "config-secret", "Secret in kube-system with these settings")
	for _, name := range []string{"s3-", "etcd-s3-"} {
		flags.BoolVar(&s3.SkipSSLVerify, name+"skip-ssl-verify", false, "believe any certificate")
		flags.BoolVar(&s3.Insecure, name+"insecure", false, "speak without TLS")
		flags.DurationVar(&s3.Timeout.Duration, name+"timeout", 0, "how long one transfer may take")
		flags.IntVar(&s3.Retention, name+"retention", 0, "how many to keep in the object store")
	}
	names, err := parseMixed(flags, args[1:])
	if err != nil {
		return c, fmt.Errorf("etcd-snapshot %s: %w", verb, err)
	}
	c.request.Name = names
	if verb != etcdsnapshot.OperationDelete {
		if len(names) > 0 {
			return c, fmt.Errorf("etcd-snapshot %s: unexpected %q", verb, names[0])
		}
		if prefix != "" {
			c.request.Name = []string{prefix}
		}
	} else if len(names) == 0 {
		return c, errors.New("etcd-snapshot delete: names are needed, as `node etcd-snapshot list` shows them")
	}
	flags.Visit(func(f *flag.Flag) {
		switch strings.TrimPrefix(f.Name, "etcd-") {
		case "dir", "snapshot-dir":
			c.request.Dir = &dir
		case "snapshot-compress":
			c.request.Compress = &compress
		case "snapshot-retention":
			c.request.Retention = &retention
		default:
			remote = remote || strings.HasPrefix(strings.TrimPrefix(f.Name, "etcd-"), "s3-")
		}
	})
	if remote {
		c.request.S3 = &s3
	}
	switch c.output {
	case "text", "table", "json", "yaml":
		return c, nil
	}
	return c, fmt.Errorf("etcd-snapshot: -o %s: text, json and yaml are known", c.output)
}

// parseMixed takes flags before and after the names, as RKE2 does.
func parseMixed(flags *flag.FlagSet, args []string) (names []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return names, nil
		}
		names, args = append(names, flags.Arg(0)), flags.Args()[1:]
	}
}

// body is the request with its secrets, which encoding/json would leave out.
func (c snapshotCommand) body() ([]byte, error) {
	plain, err := json.Marshal(c.request)
	if err != nil || c.request.S3 == nil {
		return plain, err
	}
	var all map[string]any
	if err := json.Unmarshal(plain, &all); err != nil {
		return nil, err
	}
	s3 := all["s3"].(map[string]any)
	for key, value := range map[string]config.Secret{"secretKey": c.request.S3.SecretKey, "sessionToken": c.request.S3.SessionToken} {
		delete(s3, key)
		if value != "" {
			s3[key] = value.Reveal()
		}
	}
	if c.request.S3.Timeout.Duration == 0 {
		delete(s3, "timeout")
	}
	return json.Marshal(all)
}

// ask has the supervisor do it.
func (c snapshotCommand) ask(ctx context.Context, access trust.Access) ([]byte, error) {
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	client := supervisorclient.New(access, nil)
	defer client.Close()
	return client.Snapshot(ctx, body)
}

func (c snapshotCommand) print(w io.Writer, answer []byte) error {
	switch {
	case c.output == "json":
		var out bytes.Buffer
		if err := json.Indent(&out, answer, "", "  "); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		out.WriteByte('\n')
		_, err := out.WriteTo(w)
		return err
	case c.output == "yaml":
		out, err := yaml.JSONToYAML(answer)
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		_, err = w.Write(out)
		return err
	case c.request.Operation != etcdsnapshot.OperationList:
		var result etcdsnapshot.Result
		if err := json.Unmarshal(answer, &result); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		for _, name := range result.Created {
			fmt.Fprintln(w, "created", name)
		}
		for _, name := range result.Deleted {
			fmt.Fprintln(w, "deleted", name)
		}
		return nil
	}
	var list etcdsnapshot.List
	if err := json.Unmarshal(answer, &list); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "Name\tLocation\tSize\tCreated\n")
	for _, o := range list.Items {
		size, at := "", ""
		if o.Status.Size != nil {
			size = o.Status.Size.String()
		}
		if o.Status.CreationTime != nil {
			at = o.Status.CreationTime.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", o.Spec.SnapshotName, o.Spec.Location, size, at)
	}
	return t.Flush()
}
