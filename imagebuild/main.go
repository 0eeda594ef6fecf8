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
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"keelson/imagebuild/definition"
)

const usage = `usage: imagebuild <command> [flags]

  build   [--definition FILE] [--arch amd64] [--out FILE] [--artefacts raw,qcow2] [--locked]
                                                                    build what a definition (configs/images/cloud.yaml) says
          [--sign-key FILE --sign-cert FILE] [--enroll DIR]         and sign it for Secure Boot
  summary [--definition FILE] [--arch amd64]                        say what would be built
  verify  [--cert FILE] IMAGE                                       say whether a raw image or an ISO is intact, and what is in it
  repro   [--arch amd64] [--artefacts raw] [--fresh] [DEFINITION...]
                                                                    build all, or some, definitions twice and compare
  keys    DIR                                                       make keys to try Secure Boot with
  lock    [--arch amd64]                                            write the lock of Debian packages anew
  lint    DIR|IMAGE                                                 check a root: a directory, an EROFS or a disk image
  deps    [--install] [--for build|run|check]                       check, or install, what the machine must have
          [--arch amd64]                                            to make that architecture's images
`

// memory is what the builder's own heap is kept below where it can be: parts are tens of megabytes, and the garbage of
// several would stay as long as as much again is in use.
const memory = 160 << 20

func main() {
	debug.SetMemoryLimit(memory)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "imagebuild:", err)
		stop()
		os.Exit(exitCode(err))
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command\n%s", usage)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	arch := flags.String("arch", "amd64", "architecture of the image")
	out := flags.String("out", "", "file of the raw image (build/<name>-<arch>.raw)")
	dir := flags.String("dir", "", "folder of the image's parts (build/<arch>, or build/<arch>-<name>)")
	locked := flags.Bool("locked", os.Getenv("LOCKED") == "1", "refuse packages that the lock does not name")
	file := flags.String("definition", "configs/images/cloud.yaml", "what goes into the image")
	artefacts := flags.String("artefacts", "", "what to make in place of what the definition says: all, or some of raw,zst,qcow2,vhd,vmdk,ova,gce")
	var trust trust
	trust.flags(flags)
	cert := flags.String("cert", "", "of verify: the certificate that must have signed, PEM or DER")
	fresh := flags.Bool("fresh", os.Getenv("FRESH") == "1", "of repro: compile everything anew for the second build")
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
	if args[0] == "verify" {
		if flags.NArg() != 1 {
			return fmt.Errorf("verify: want one raw image or ISO\n%s", usage)
		}
		return verifyImage(flags.Arg(0), *cert, stdout)
	}
	if args[0] == "repro" {
		return reproduce(ctx, reproduction{
			arch: *arch, artefacts: *artefacts, fresh: *fresh, locked: *locked, trust: trust, definitions: flags.Args(), cache: os.Getenv("KEELSON_CACHE"),
		}, stdout, stderr)
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
	if args[0] == "deps" {
		return deps(ctx, *purpose, *arch, *install, stderr)
	}
	if !slices.Contains([]string{"build", "lock", "summary"}, args[0]) {
		return fmt.Errorf("there is no command %q\n%s", args[0], usage)
	}
	image, err := definition.Load(*file)
	if err != nil {
		return err
	}
	wanted := image.Artefacts
	if *artefacts != "" {
		if wanted, err = parseArtefacts(*artefacts); err != nil {
			return err
		}
	}
	if *out == "" {
		*out = filepath.Join("build", image.Name+"-"+*arch+".raw")
	}
	// Images of one architecture share their programs, unless a folder is asked for.
	bin := filepath.Join("build", *arch, "bin")
	if *dir == "" {
		*dir = partsDir(image.Name, *arch)
	} else {
		bin = filepath.Join(*dir, "bin")
	}
	config := Config{
		Arch: *arch, Definition: image.For(*arch), Out: *out, Artefacts: wanted, Locked: *locked,
		Dir: *dir, Bin: bin, Cache: os.Getenv("KEELSON_CACHE"), Epoch: os.Getenv("SOURCE_DATE_EPOCH"),
		Log: slog.New(progress{stderr}), Stdout: stdout, Trust: trust,
	}
	if config.Cache == "" {
		config.Cache = filepath.Join("build", "cache")
	}
	switch args[0] {
	case "lock":
		return lock(ctx, config)
	case "summary":
		return summary(config)
	}
	return build(ctx, config)
}

// partsDir is where the parts of an image are: those of the image called
// keelson where everything that starts a kernel directly looks for them.
func partsDir(name, arch string) string {
	if name != "keelson" {
		arch += "-" + strings.TrimPrefix(name, "keelson-")
	}
	return filepath.Join("build", arch)
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
