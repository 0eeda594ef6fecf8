package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"keelson/imagebuild/definition"
	"keelson/imagebuild/input"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/kernel"
	"keelson/imagebuild/rootfs"
	"keelson/imagebuild/tree"
)

// summary says what a build would make, and of what. It fetches and builds
// nothing: a size is there where it is known.
func summary(config Config) error {
	d := config.Definition
	text, err := os.ReadFile("go.mod")
	if err != nil {
		return fmt.Errorf("read sources: %w: start imagebuild in the folder of go.mod", err)
	}
	gomod := gobuild.Modules(text)
	table := tabwriter.NewWriter(config.Stdout, 0, 0, 2, ' ', 0)
	say := func(what, text string) { fmt.Fprintf(table, "%s\t%s\t\n", what, text) }
	say("image", d.Name+" for "+config.Arch+", by "+d.File)
	say("kernel", d.Kernel)
	say("command line", d.Cmdline())
	for _, set := range []struct {
		what  string
		files []string
	}{{"initramfs", d.Boot}, {"root", d.Root}} {
		for _, file := range set.files {
			n, err := countModules(file)
			if err != nil {
				return err
			}
			say("modules of the "+set.what, fmt.Sprintf("%s, %d and what they need", file, n))
		}
	}
	if d.Packed {
		say("modules of the root alone", "compressed")
	}
	firmware := "none"
	if d.Firmware {
		firmware = "what the modules name"
	}
	say("firmware", firmware)
	for _, dir := range d.Overlays {
		// As the build lays it, each by itself.
		var root tree.Tree
		if err := rootfs.Overlay(&root, dir, "/"); err != nil {
			return fmt.Errorf("%s: overlays: %w", d.File, err)
		}
		say("overlay", fmt.Sprintf("%s, %d files and folders", dir, root.Len()-1)) // without the root itself
	}
	for _, name := range d.Archives {
		images, err := archiveNames(name)
		if err != nil {
			return err
		}
		say("archive", name+": "+strings.Join(images, ", "))
	}
	userData, err := (&state{config: config}).userData()
	if err != nil {
		return fmt.Errorf("%s: user-data: %w", d.File, err)
	}
	if userData != nil {
		say("user-data", fmt.Sprintf("%s, %d bytes", d.UserData, len(userData)))
	}
	for _, name := range []string{"k8s.io/kubernetes", "go.etcd.io/etcd/server/v3", "github.com/containerd/containerd/v2", "github.com/opencontainers/runc", "github.com/coredns/coredns", "github.com/flannel-io/flannel", "github.com/containernetworking/plugins"} {
		say("Go module", name+" "+gomod[name])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := summarizePackages(config); err != nil {
		return err
	}
	return summarizeArtefacts(config)
}

func countModules(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read module list: %w", err)
	}
	names, err := kernel.LoadList(file, text)
	return len(names), err
}

// summarizePackages lists what the locks say; a package without a lock would
// be the newest.
func summarizePackages(config Config) error {
	table := tabwriter.NewWriter(config.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\nDebian package\tversion\tMB to fetch\t\n")
	var total int64
	for _, list := range packageLists(config.Arch, config.Definition.Kernel, config.Definition.Firmware) {
		text, err := os.ReadFile(lockFile(list))
		if os.IsNotExist(err) {
			fmt.Fprintf(table, "all of %s.list\tthe newest\t\t\n", list)
			continue
		}
		if err != nil {
			return fmt.Errorf("read lock: %w", err)
		}
		locked, err := input.LoadLock(lockFile(list), text)
		if err != nil {
			return err
		}
		for _, p := range locked {
			note := fmt.Sprintf("%.1f", float64(p.Size)/1e6)
			if _, err := os.Stat(filepath.Join(config.Cache, "deb", p.SHA256+".deb")); err == nil {
				note = "here"
			} else {
				total += p.Size
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t\n", p.Name, p.Version, note)
		}
	}
	fmt.Fprintf(table, "\t\t%.1f\t\n", float64(total)/1e6)
	return table.Flush()
}

func summarizeArtefacts(config Config) error {
	table := tabwriter.NewWriter(config.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\nartefact\tMB of the last build\t\n")
	s := &state{config: config}
	for _, name := range config.Artefacts {
		for _, file := range s.filesOf(name) {
			size := "not built yet"
			if info, err := os.Stat(file); err == nil {
				size = fmt.Sprintf("%.1f", float64(info.Size())/1e6)
			}
			fmt.Fprintf(table, "%s\t%s\t\n", file, size)
		}
	}
	return table.Flush()
}

// filesOf are the files of an artefact.
func (s *state) filesOf(artefact string) []string {
	switch artefact {
	case definition.ISO:
		return []string{s.artefact(".iso")}
	case definition.PXE:
		return []string{s.artefact(pxeUKIExt), s.artefact(pxeKernelExt), s.artefact(pxeInitrdExt), s.artefact(pxeScriptExt)}
	}
	for _, f := range formats() {
		if f.name == artefact {
			return []string{s.artefact(f.ext)}
		}
	}
	return []string{s.config.Out}
}
