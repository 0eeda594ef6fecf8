// Package gobuild compiles the Go programs of an image with the go command:
// static, without paths of the machine, versions stamped. Which programs
// these are is a literal list (Programs); go.mod pins what they are made of,
// and Go's build cache decides what is compiled anew. It writes only to its
// output folder. The builder's stages take the binaries from there.
package gobuild

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Program is one binary.
type Program struct {
	Package string
	Name    string // last element of Package when empty
	CGO     bool   // runc alone: its process starts in C
}

func (p Program) name() string {
	if p.Name != "" {
		return p.Name
	}
	base := path.Base(p.Package)
	// A major version at the end is no name.
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(p.Package))
	}
	return base
}

// Programs is every Go program of an image.
func Programs() []Program {
	const plugins = "github.com/containernetworking/plugins/plugins/"
	return []Program{
		{Package: "./init"},
		{Package: "./node/bundle"},
		{Package: "./node/pause"},
		{Package: "./node/cni/flannel"},
		{Package: plugins + "main/bridge"},
		{Package: plugins + "main/loopback"},
		{Package: plugins + "ipam/host-local"},
		{Package: plugins + "meta/portmap"},
		{Package: plugins + "meta/bandwidth"},
		{Package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
		{Package: "github.com/opencontainers/runc", CGO: true},
	}
}

// LinkedWithC is the name of the program that is linked with a library in C.
const LinkedWithC = "runc"

// Config says for what and where to build.
type Config struct {
	Root    string // the module's folder
	Out     string // where binaries go
	Arch    string // GOARCH
	Triplet string // how GNU names the architecture
	Sysroot string // folder with all that CGO programs are linked with, the C library and its headers too; the machine's own if empty
	Foreign bool   // it is not this machine's: the tools have the triplet before their names
	Stamps  []Stamp
}

// Stamp sets a string variable at link time.
type Stamp struct{ Variable, Value string }

// Build compiles every program and returns name -> file. Programs with the
// same settings go to one go command: packages are loaded once, and what has
// not changed is not linked again.
func Build(ctx context.Context, config Config, programs []Program) (map[string]string, error) {
	if err := os.MkdirAll(config.Out, 0o755); err != nil {
		return nil, fmt.Errorf("make output folder: %w", err)
	}
	out := map[string]string{}
	var pure, cgo []Program
	for _, p := range programs {
		out[p.name()] = filepath.Join(config.Out, p.name())
		if p.CGO {
			cgo = append(cgo, p)
		} else {
			pure = append(pure, p)
		}
	}
	if len(out) != len(programs) {
		return nil, fmt.Errorf("build: two of %d programs have the same name", len(programs))
	}
	if len(pure) > 0 {
		args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", "netgo,osusergo,urfave_cli_no_docs,static_build",
			"-ldflags", "-s -w" + stampFlags(config.Stamps), "-o", config.Out + "/"}
		for _, p := range pure {
			args = append(args, p.Package)
		}
		if err := run(ctx, config, false, args); err != nil {
			return nil, err
		}
	}
	for _, p := range cgo {
		// A build id would name the paths of compiler and libraries.
		// runc's release build: static, seccomp (its Makefile, target static).
		args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", "netgo,osusergo,seccomp,urfave_cli_no_docs",
			"-ldflags", "-s -w -buildid= -extldflags -static" + stampFlags(config.Stamps), "-o", out[p.name()], p.Package}
		if err := run(ctx, config, true, args); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func stampFlags(stamps []Stamp) string {
	var b strings.Builder
	for _, s := range stamps {
		fmt.Fprintf(&b, " -X %s=%s", s.Variable, s.Value)
	}
	return b.String()
}

func run(ctx context.Context, config Config, cgo bool, args []string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = config.Root
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+enabled, "GOOS=linux", "GOARCH="+config.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOWORK=off")
	if cgo && config.Foreign {
		cmd.Env = append(cmd.Env, "CC="+config.Triplet+"-gcc")
	}
	if cgo && config.Sysroot != "" {
		flags, err := sysrootFlags(config.Sysroot, config.Triplet)
		if err != nil {
			return err
		}
		cmd.Env = append(cmd.Env, flags...)
	}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args[len(args)-1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// sysrootFlags are the variables that have a compiler take everything from a
// sysroot, and nothing of what the machine has installed.
func sysrootFlags(sysroot, triplet string) ([]string, error) {
	lib, include := "usr/lib/"+triplet, filepath.Join(sysroot, "usr/include")
	// The part of the C library that comes with the compiler: where the
	// sysroot has it, it is of one version.
	builtin, err := filepath.Glob(filepath.Join(sysroot, "usr/lib/gcc", triplet, "*"))
	if err != nil || len(builtin) > 1 {
		return nil, fmt.Errorf("sysroot: libraries of several compilers: %s, %w", builtin, err)
	}
	// A compiler for another architecture looks into folders of its own before
	// those of --sysroot, so both are named once more: -isystem and -B come
	// first. Go's linker asks the compiler what it can do with --sysroot alone.
	// The compiler's version would stay in the program (-fno-ident).
	link := "--sysroot=" + sysroot
	for _, dir := range append(builtin, filepath.Join(sysroot, lib)) {
		link += " -B" + dir + " -L" + dir
	}
	return []string{
		"CGO_CFLAGS=-O2 -g -fno-ident --sysroot=" + sysroot + " -isystem " + include + " -isystem " + filepath.Join(include, triplet),
		"CGO_LDFLAGS=" + link,
		// Go's cache does not see when pkg-config's answer changes, so the
		// folders are given by variables that it does see, and pkg-config
		// leaves them out.
		"PKG_CONFIG_LIBDIR=" + filepath.Join(sysroot, lib, "pkgconfig"), "PKG_CONFIG_PATH=", "PKG_CONFIG_SYSROOT_DIR=",
		"PKG_CONFIG_SYSTEM_LIBRARY_PATH=/" + lib, "PKG_CONFIG_SYSTEM_INCLUDE_PATH=/usr/include",
	}, nil
}

// KubeSuffix marks the versions of Kubernetes that were built here.
const KubeSuffix = "+keelson1"

// Stamps are the versions that the programs report. modules maps module
// paths to versions; commit and date are those of the sources of the bundle.
func Stamps(modules map[string]string, commit string, date time.Time) ([]Stamp, error) {
	kube := modules["k8s.io/kubernetes"]
	numbers := strings.SplitN(strings.TrimPrefix(kube, "v"), ".", 3)
	if len(numbers) != 3 {
		return nil, fmt.Errorf("stamp versions: go.mod has no release of k8s.io/kubernetes (%q)", kube)
	}
	var out []Stamp
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		out = append(out,
			Stamp{pkg + ".gitVersion", kube + KubeSuffix},
			Stamp{pkg + ".gitMajor", numbers[0]},
			Stamp{pkg + ".gitMinor", numbers[1]},
			Stamp{pkg + ".gitCommit", commit},
			Stamp{pkg + ".gitTreeState", "clean"},
			Stamp{pkg + ".buildDate", date.UTC().Format(time.RFC3339)})
	}
	const containerd = "github.com/containerd/containerd/v2"
	return append(out,
		Stamp{containerd + "/version.Version", modules[containerd]},
		Stamp{containerd + "/version.Revision", commit},
		Stamp{"go.etcd.io/etcd/api/v3/version.GitSHA", commit},
		Stamp{"github.com/flannel-io/flannel/pkg/version.Version", modules["github.com/flannel-io/flannel"]},
		Stamp{"github.com/coredns/coredns/coremain.GitCommit", commit},
	), nil
}

// Modules reads the versions of all required modules from the text of go.mod.
func Modules(gomod []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(gomod)) {
		line, _, _ = strings.Cut(line, "//")
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) == 2 && strings.HasPrefix(fields[1], "v") && strings.Contains(fields[0], ".") {
			out[fields[0]] = fields[1]
		}
	}
	return out
}

// Names of the programs, sorted.
func Names(binaries map[string]string) []string {
	out := make([]string, 0, len(binaries))
	for name := range binaries {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
