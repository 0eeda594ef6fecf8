// Imagebuild makes bootable images of Keelson from Go modules and Debian
// packages: inputs → rootfs → images.
//
// It needs no root, no container engine and no mkfs, and writes the same
// bytes for the same inputs. It reads the checkout it is started in, the Go
// module cache and the apt sources of the machine, and writes below build/
// alone; `deps --install` is the one command that changes the machine, and
// only when asked.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `usage: imagebuild <command> [flags]

  build [--arch amd64] [--out build/keelson-amd64.raw] [--artefacts raw] [--locked]
                                                                    build an image, and other formats of it beside it
        [--sign-key FILE --sign-cert FILE] [--enroll DIR]           and sign it for Secure Boot
  keys  DIR                                                         make keys to try Secure Boot with
  lock  [--arch amd64]                                              write the lock of Debian packages anew
  lint  DIR|IMAGE                                                   check a root: a directory, an EROFS or a disk image
  deps  [--install] [--for build|run|check]                         check, or install, what the machine must have
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "imagebuild:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command\n%s", usage)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	arch := flags.String("arch", "amd64", "architecture of the image")
	out := flags.String("out", "", "file of the image (build/keelson-<arch>.raw)")
	dir := flags.String("dir", "", "folder of the image's parts (build/<arch>)")
	locked := flags.Bool("locked", os.Getenv("LOCKED") == "1", "refuse packages that the lock does not name")
	artefacts := flags.String("artefacts", rawArtefact, "what to make: all, or some of raw,zst,qcow2,vhd,vmdk,ova,gce")
	var trust trust
	trust.flags(flags)
	install := flags.Bool("install", false, "install what is missing, when root")
	purpose := flags.String("for", "build", "what to check for: build, run or check")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] == "lint" {
		if flags.NArg() != 1 {
			return fmt.Errorf("lint: want one directory or image\n%s", usage)
		}
		return lint(flags.Arg(0), *arch, stdout)
	}
	if args[0] == "keys" {
		if flags.NArg() != 1 {
			return fmt.Errorf("keys: want one directory\n%s", usage)
		}
		return makeKeys(flags.Arg(0), stdout)
	}
	if flags.NArg() != 0 {
		return fmt.Errorf("%s: argument %q is not wanted\n%s", args[0], flags.Arg(0), usage)
	}
	if *dir == "" {
		*dir = filepath.Join("build", *arch)
	}
	if *out == "" {
		*out = filepath.Join("build", "keelson-"+*arch+".raw")
	}
	wanted, err := parseArtefacts(*artefacts)
	if err != nil {
		return err
	}
	config := Config{
		Arch: *arch, Out: *out, Artefacts: wanted, Locked: *locked,
		Dir: *dir, Cache: os.Getenv("KEELSON_CACHE"), Epoch: os.Getenv("SOURCE_DATE_EPOCH"),
		Log: slog.New(progress{stderr}), Stdout: stdout, Trust: trust,
	}
	if config.Cache == "" {
		config.Cache = filepath.Join("build", "cache")
	}
	switch args[0] {
	case "build":
		return build(ctx, config)
	case "lock":
		return lock(ctx, config)
	case "deps":
		return deps(ctx, *purpose, *install, stderr)
	}
	return fmt.Errorf("there is no command %q\n%s", args[0], usage)
}

// progress is a slog.Handler that prints the message and no more: what a
// person at a terminal reads.
type progress struct{ w io.Writer }

func (p progress) Enabled(context.Context, slog.Level) bool { return true }
func (p progress) WithAttrs([]slog.Attr) slog.Handler       { return p }
func (p progress) WithGroup(string) slog.Handler            { return p }
func (p progress) Handle(_ context.Context, r slog.Record) error {
	mark := "  "
	if r.Level >= slog.LevelWarn {
		mark = "! "
	}
	_, err := fmt.Fprintln(p.w, mark+r.Message)
	return err
}
