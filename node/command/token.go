package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson/node/config"
	"keelson/node/jointoken"
	change "keelson/node/rotation"
	"keelson/node/token"
)

const tokenUsage = `usage: node token <verb> [flags]

  create [TOKEN] [--ttl 24h] [--usages LIST] [--groups LIST] [--description TEXT]
                              make a token that agents join with for a while (ttl 0: for good), and print it
  list [-o text|json]         the tokens there are
  delete ID...                take tokens back
  generate                    print a new token, and make nothing of it
  rotate [--new-token TOKEN] [--token TOKEN | --token-file FILE] [--server URL]
                              change the server token, and print the new one; the one before holds for a while
  rotate --finish [--token TOKEN | --token-file FILE] [--server URL]
                              have the one before hold no more, from now on
  recover [--new-token TOKEN] [--unsealed] [--etcd URL]
                              on a server: give the cluster a new token where nobody has its own any more, by the keys
                              of its authorities on this disk, and print it

create, list and delete take --kubeconfig FILE; all that look at this machine's files take --data-dir DIR.
`

// tokens is one `node token`.
type tokens struct {
	now            time.Time
	stdout, stderr io.Writer
	dataDir        string
	kubeconfig     string // empty: the administrator's of this machine
}

// tokenVerb runs `node token`.
func tokenVerb(ctx context.Context, args []string, now time.Time, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("token: a verb is needed\n\n%s", tokenUsage)
	}
	t := &tokens{now: now, stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("token "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&t.dataDir, "data-dir", config.Default().DataDir, "RKE2's folder")
	flags.StringVar(&t.dataDir, "d", config.Default().DataDir, "the same")
	flags.StringVar(&t.kubeconfig, "kubeconfig", "", "kubeconfig of an administrator")
	run, ok := map[string]func(context.Context, *flag.FlagSet, []string) error{
		"create": t.create, "list": t.list, "delete": t.remove, "generate": t.generate, "rotate": t.rotate, "recover": t.recover,
	}[args[0]]
	if !ok {
		return fmt.Errorf("token: unknown verb %q\n\n%s", args[0], tokenUsage)
	}
	if err := run(ctx, flags, args[1:]); err != nil {
		return fmt.Errorf("token %s: %w", args[0], err)
	}
	return nil
}

// parse reads flags and arguments in any order, as RKE2's users write them, and refuses too many arguments.
func parse(flags *flag.FlagSet, args []string, most int) ([]string, error) {
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			break
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
	if len(rest) > most {
		return nil, fmt.Errorf("argument %q is one too many", rest[most])
	}
	return rest, nil
}

func (t *tokens) create(ctx context.Context, flags *flag.FlagSet, args []string) error {
	ttl := flags.Duration("ttl", jointoken.DefaultTTL, "how long the token holds; 0: for good")
	usages := flags.String("usages", strings.Join([]string{"signing", "authentication"}, ","), "what the token is for, separated by commas")
	groups := flags.String("groups", jointoken.DefaultGroup, "groups of who joins with it, separated by commas")
	description := flags.String("description", "", "what people should know of it")
	rest, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	next := jointoken.Token{Description: *description, Usages: list(*usages), Groups: list(*groups)}
	switch {
	case *ttl < 0:
		return fmt.Errorf("--ttl %v is over already; give a time to come, or 0 for good", *ttl)
	case *ttl > 0:
		next.Expires = t.now.Add(*ttl).UTC().Truncate(time.Second)
	}
	next.ID, next.Secret = token.GenerateBootstrap()
	if len(rest) > 0 {
		if next.ID, next.Secret, err = token.ParseBootstrap(token.Secret(rest[0])); err != nil {
			return err
		}
	}
	client, ca, err := t.client()
	if err != nil {
		return err
	}
	full, err := token.FormatBootstrap(ca, next.ID, next.Secret)
	if err != nil {
		return err
	}
	if err := client.Create(ctx, next); err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.stdout, full.Reveal())
	return err
}

func (t *tokens) list(ctx context.Context, flags *flag.FlagSet, args []string) error {
	output := flags.String("o", "text", "output: text or json")
	flags.StringVar(output, "output", "text", "the same")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	if _, err := jointoken.Render(nil, *output, t.now); err != nil {
		return err
	}
	client, _, err := t.client()
	if err != nil {
		return err
	}
	all, broken := client.List(ctx)
	if all == nil && broken != nil {
		return broken
	}
	text, err := jointoken.Render(all, *output, t.now)
	if err != nil {
		return err
	}
	_, err = t.stdout.Write(text)
	return errors.Join(err, broken)
}

func (t *tokens) remove(ctx context.Context, flags *flag.FlagSet, args []string) error {
	rest, err := parse(flags, args, len(args))
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("give the id of a token, which `node token list` shows")
	}
	var ids []string
	for _, text := range rest {
		id, _, err := token.ParseBootstrap(token.Secret(text))
		if err != nil {
			// An id alone is one that any secret goes with.
			if id, _, err = token.ParseBootstrap(token.Secret(text + ".0000000000000000")); err != nil {
				return errors.New("an argument is neither the id of a token (6 characters of a-z and 0-9) nor a token")
			}
		}
		ids = append(ids, id)
	}
	client, _, err := t.client()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := client.Delete(ctx, id); err != nil {
			return err
		}
		fmt.Fprintf(t.stdout, "bootstrap token %q deleted\n", id)
	}
	return nil
}

func (t *tokens) generate(_ context.Context, flags *flag.FlagSet, args []string) error {
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	id, secret := token.GenerateBootstrap()
	_, err := fmt.Fprintln(t.stdout, id+"."+secret.Reveal())
	return err
}

func (t *tokens) rotate(ctx context.Context, flags *flag.FlagSet, args []string) error {
	var shown, tokenFile, next, server string
	for _, name := range []string{"token", "t"} {
		flags.StringVar(&shown, name, "", "the present server token; without it this machine's own")
	}
	for _, name := range []string{"server", "s"} {
		flags.StringVar(&server, name, localServer, "a server of the cluster")
	}
	flags.StringVar(&tokenFile, "token-file", "", "file with it, in place of --token")
	flags.StringVar(&next, "new-token", "", "the new token; without it one is made")
	finish := flags.Bool("finish", false, "end the time in which the token before is honoured")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	if *finish && next != "" {
		return errors.New("--finish changes no token: leave --new-token out")
	}
	password, err := change.Check(token.Secret(next))
	if err != nil {
		return err
	}
	access, err := operator{dataDir: t.dataDir, server: server, token: shown, tokenFile: tokenFile, stderr: t.stderr}.access(ctx)
	if err != nil {
		return err
	}
	if *finish {
		if err := change.AskFinish(ctx, access); err != nil {
			return err
		}
		fmt.Fprintln(t.stderr, "The token before the rotation is honoured no more. Nodes that have joined go on by their certificates.\n"+
			"A machine with the old token in its settings cannot join anew: bring it up to date there.")
		return nil
	}
	full, err := token.Format(access.CA, token.UserServer, password)
	if err != nil {
		return err
	}
	if err := change.Ask(ctx, access, password); err != nil {
		return err
	}
	fmt.Fprintln(t.stderr, "The token is rotated. No machine needs a restart; the token before is honoured for a while (a day, if nobody changed that).\n"+
		"Bring it up to date where it stands in settings. Keep the old one too: snapshots taken with it are restored with it.")
	_, err = fmt.Fprintln(t.stdout, full.Reveal())
	return err
}

// client gives a way to the cluster's tokens, and the authority that full tokens name.
func (t *tokens) client() (jointoken.Client, []byte, error) {
	path := t.kubeconfig
	if path == "" {
		path = config.Default().WriteKubeconfig
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			path = filepath.Join(t.dataDir, "server", "cred", "admin.kubeconfig")
		}
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return jointoken.Client{}, nil, fmt.Errorf("load kubeconfig %s: %w", path, err)
	}
	if err := rest.LoadTLSFiles(c); err != nil {
		return jointoken.Client{}, nil, fmt.Errorf("load kubeconfig %s: %w", path, err)
	}
	c.Timeout = time.Minute
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		return jointoken.Client{}, nil, fmt.Errorf("use kubeconfig %s: %w", path, err)
	}
	return jointoken.Client{Secrets: set.CoreV1().Secrets(metav1.NamespaceSystem)}, c.CAData, nil
}

// list splits at commas; nothing between two is nothing.
func list(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' })
}
