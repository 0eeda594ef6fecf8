package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"keelson/imagebuild/input"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/oci"
	"keelson/imagebuild/rootfs"
	"keelson/init/layout"
)

// applets are the names by which the bundle is called.
func applets() []string {
	return []string{
		"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "cloud-controller-manager",
		"node", "kubelet", "kubectl", "etcd", "etcdctl", "etcdutl", "containerd", "ctr", "crictl", "coredns", "flanneld", "network-policy",
		"metrics-server", "local-path",
	}
}

// systemImages are the images of static pods and add-ons, by component.
func systemImages(modules map[string]string) []oci.Image {
	kubernetes := modules["k8s.io/kubernetes"]
	image := func(name, version, program string, layers ...string) oci.Image {
		return oci.Image{Name: "registry.keelson.internal/" + name + ":" + version, Layers: layers, Entrypoint: []string{program}}
	}
	return []oci.Image{
		image("kube-apiserver", kubernetes, "kube-apiserver", "base", "bundle"),
		image("kube-controller-manager", kubernetes, "kube-controller-manager", "base", "bundle"),
		image("kube-scheduler", kubernetes, "kube-scheduler", "base", "bundle"),
		image("cloud-controller-manager", kubernetes, "cloud-controller-manager", "base", "bundle"),
		image("kube-proxy", kubernetes, "kube-proxy", "base", "nft", "bundle"),
		image("etcd", modules["go.etcd.io/etcd/server/v3"], "etcd", "base", "bundle"),
		image("coredns", modules["github.com/coredns/coredns"], "coredns", "base", "bundle"),
		image("flannel", modules["github.com/flannel-io/flannel"], "flanneld", "base", "nft", "bundle"),
		image("network-policy", modules["github.com/cloudnativelabs/kube-router/v2"], "network-policy", "base", "iptables", "bundle"),
		image("metrics-server", modules["sigs.k8s.io/metrics-server"], "metrics-server", "base", "bundle"),
		image("local-path", kubernetes, "local-path", "base", "bundle"),
		image("pause", "3.10", "/bin/pause", "pause"),
	}
}

// rootSteps fill the root tree, in order; what comes later lies over what
// came before.
func rootSteps() []func(*state) error {
	return []func(*state) error{
		func(s *state) error { return rootfs.Skeleton(&s.root, layout.MountPoints()) },
		putOverlays, putConfigs, putPrograms, putBundle, putDebianPrograms, putModules, putArchives, putZonesAndCertificates, putBaseLayer,
		func(s *state) error { return rootfs.Share(&s.root, layout.Layers+"/nft") },
		func(s *state) error { return rootfs.Share(&s.root, layout.Layers+"/iptables") },
		putManifest, putSBOM,
	}
}

func fillRoot(_ context.Context, s *state) error {
	for _, step := range rootSteps() {
		if err := step(s); err != nil {
			return err
		}
	}
	return nil
}

func putOverlays(s *state) error {
	for _, dir := range s.config.Definition.Overlays {
		if err := rootfs.Overlay(&s.root, dir, "/"); err != nil {
			return err
		}
	}
	perArch := filepath.Join("overlays", s.config.Arch)
	if _, err := os.Stat(perArch); err == nil {
		return rootfs.Overlay(&s.root, perArch, "/")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func putConfigs(s *state) error {
	for from, to := range map[string]string{
		"configs/sysctl.d": layout.SysctlDir, "configs/modules-load.d": layout.ModulesLoad, "configs/manifests": layout.Manifests,
	} {
		if err := rootfs.Overlay(&s.root, from, to); err != nil {
			return err
		}
	}
	return s.root.Bytes(layout.OSRelease, 0o644, s.source.osRelease())
}

// putPrograms puts the Go programs that stand alone: those started for every
// pod, and PID 1.
func putPrograms(s *state) error {
	for _, p := range []struct{ path, program string }{
		{layout.Init, "init"},
		{"/usr/bin/containerd-shim-runc-v2", "containerd-shim-runc-v2"},
		{"/usr/bin/runc", "runc"},
		{layout.CNIBin + "/bridge", "bridge"},
		{layout.CNIBin + "/host-local", "host-local"},
		{layout.CNIBin + "/loopback", "loopback"},
		{layout.CNIBin + "/portmap", "portmap"},
		{layout.CNIBin + "/bandwidth", "bandwidth"},
		{layout.CNIBin + "/flannel", "flannel"},
		{layout.Layers + "/pause/bin/pause", "pause"},
		{layout.Layers + "/bundle/bin/bundle", "bundle"},
	} {
		if err := s.root.File(p.path, 0o755, s.programs[p.program]); err != nil {
			return err
		}
	}
	return nil
}

// putBundle gives the bundle its names, in its layer and on the host: all
// lead to one inode.
func putBundle(s *state) error {
	for _, name := range applets() {
		inLayer := layout.Layers + "/bundle/bin/" + name
		if err := s.root.Link(inLayer, "bundle"); err != nil {
			return err
		}
		if err := s.root.Link("/usr/bin/"+name, inLayer); err != nil {
			return err
		}
	}
	return nil
}

// hostPrograms come from Debian, with the libraries they need. mount and
// umount are what the kubelet makes pods' volumes with; nft is for the CNI
// plugins.
func hostPrograms() []string {
	return []string{"/usr/sbin/nft", "/usr/bin/mount", "/usr/bin/umount", layout.E2fsck, layout.Mke2fs}
}

func putDebianPrograms(s *state) error {
	var dirs []string
	for _, p := range s.packages {
		dirs = append(dirs, p.Dir)
	}
	if err := rootfs.Programs(&s.root, "/", s.config.Arch, dirs, hostPrograms()); err != nil {
		return err
	}
	if err := rootfs.Programs(&s.root, layout.Layers+"/nft", s.config.Arch, dirs, []string{"/usr/sbin/nft"}); err != nil {
		return err
	}
	if err := putIptables(s, dirs); err != nil {
		return err
	}
	e2fsprogs, err := input.Find(s.packages, "e2fsprogs")
	if err != nil {
		return err
	}
	return s.root.File(layout.FactoryEtc+"/mke2fs.conf", 0o644, filepath.Join(e2fsprogs.Dir, "etc/mke2fs.conf"))
}

// extensions are the matches and targets that the rules of network policies are written in.
func extensions() []string {
	return []string{
		"libxt_standard", "libxt_comment", "libxt_addrtype", "libxt_conntrack", "libxt_limit", "libxt_mark", "libxt_MARK", "libxt_multiport",
		"libxt_physdev", "libxt_set", "libxt_tcp", "libxt_udp", "libxt_sctp", "libxt_NFLOG",
		"libipt_icmp", "libipt_REJECT", "libip6t_icmp6", "libip6t_hl", "libip6t_REJECT",
	}
}

// putIptables makes the layer that network policies are applied with: iptables on nftables, and ipset.
func putIptables(s *state, dirs []string) error {
	const layer, multi = layout.Layers + "/iptables", "xtables-nft-multi"
	programs := []string{"/usr/sbin/" + multi, "/usr/sbin/ipset"}
	for _, name := range extensions() {
		programs = append(programs, path.Join(rootfs.LibraryDirs(s.config.Arch)[0], "xtables", name+".so"))
	}
	if err := rootfs.Programs(&s.root, layer, s.config.Arch, dirs, programs); err != nil {
		return err
	}
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		if err := s.root.Link(layer+"/usr/sbin/"+name, multi); err != nil {
			return err
		}
	}
	return nil
}

func putModules(s *state) error {
	names, err := loadedAtBoot()
	if err != nil {
		return err
	}
	set, err := s.moduleSet(names, slices.Concat(s.config.Definition.Boot, s.config.Definition.Root)...)
	if err != nil {
		return err
	}
	if s.config.Definition.Packed {
		plain, err := s.moduleSet(names, s.config.Definition.Boot...)
		if err != nil {
			return err
		}
		set.Pack(plain)
	}
	if err := set.Put(&s.root, layout.Modules); err != nil || !s.config.Definition.Firmware {
		return err
	}
	blobs, err := s.findFirmware(set)
	if err != nil {
		return err
	}
	s.config.Log.Info(blobs.String())
	if err := blobs.PutTerms(&s.root, layout.Doc); err != nil {
		return err
	}
	return blobs.Put(&s.root, layout.Firmware)
}

// putArchives ships images for containerd, which it imports when it starts.
func putArchives(s *state) error {
	for _, name := range s.config.Definition.Archives {
		images, err := archiveNames(name)
		if err != nil {
			return err
		}
		to := layout.Archives + "/" + filepath.Base(name)
		if _, twice := s.root.Get(to); twice {
			return fmt.Errorf("archive %s: another one is called %s too", name, filepath.Base(name))
		}
		s.config.Log.Info("shipping " + strings.Join(images, ", "))
		if err := s.root.File(to, 0o644, name); err != nil {
			return err
		}
	}
	return nil
}

func archiveNames(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	defer f.Close()
	images, err := oci.Names(f)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", name, err)
	}
	return images, nil
}

// putZonesAndCertificates takes time zones without "right" (leap seconds in
// the count, which Kubernetes cannot use) and "posix" (the same once more).
func putZonesAndCertificates(s *state) error {
	tzdata, err := input.Find(s.packages, "tzdata")
	if err != nil {
		return err
	}
	keep := func(rel string) bool { return rel != "right" && rel != "posix" && rel != "localtime" }
	if err := rootfs.Copy(&s.root, filepath.Join(tzdata.Dir, "usr/share/zoneinfo"), layout.Zoneinfo, keep); err != nil {
		return err
	}
	authorities, err := input.Find(s.packages, "ca-certificates")
	if err != nil {
		return err
	}
	bundle, err := rootfs.Certificates(filepath.Join(authorities.Dir, "usr/share/ca-certificates"))
	if err != nil {
		return err
	}
	return s.root.Bytes(layout.FactoryEtc+"/ssl/certs/ca-certificates.crt", 0o644, bundle)
}

// putBaseLayer makes the lowest layer of the system images: what a Go program
// expects to find in a container.
func putBaseLayer(s *state) error {
	base := layout.Layers + "/base"
	for _, name := range []string{"passwd", "group", "nsswitch.conf", "ssl/certs/ca-certificates.crt"} {
		entry, ok := s.root.Get(layout.FactoryEtc + "/" + name)
		if !ok {
			return fmt.Errorf("base layer: %s/%s is absent", layout.FactoryEtc, name)
		}
		entry.Path = base + "/etc/" + name
		if err := s.root.Add(entry); err != nil {
			return err
		}
	}
	if err := s.root.Dir(base+"/tmp", fs.ModeSticky|0o777); err != nil {
		return err
	}
	// The zones live in the layer; the host's path leads there.
	zones, err := s.root.Entries()
	if err != nil {
		return err
	}
	for _, e := range zones {
		if strings.HasPrefix(e.Path, layout.Zoneinfo+"/") {
			e.Path = base + e.Path
			if err := s.root.Add(e); err != nil {
				return err
			}
		}
	}
	s.root.Remove(layout.Zoneinfo)
	return s.root.Link(layout.Zoneinfo, base+layout.Zoneinfo)
}

// putManifest writes down what the image is made of.
func putManifest(s *state) error {
	type debian struct {
		Name     string `json:"name"`
		Version  string `json:"version"`
		SHA256   string `json:"sha256"`
		Locked   bool   `json:"locked"`
		Replaces string `json:"replaces,omitempty"` // version of the lock that the archive no longer had
	}
	manifest := struct {
		Version  string            `json:"version"`
		Commit   string            `json:"commit"`
		Epoch    int64             `json:"epoch"`
		Arch     string            `json:"arch"`
		Kernel   string            `json:"kernel"`
		Programs map[string]string `json:"programs"` // SHA-256
		Modules  map[string]string `json:"modules"`
		Packages []debian          `json:"packages"`
	}{s.source.Version, s.source.Commit, s.source.Epoch.Unix(), s.config.Arch, s.kernel.Release, map[string]string{}, s.source.Modules, nil}
	for _, p := range s.packages {
		manifest.Packages = append(manifest.Packages, debian{p.Name, p.Version, p.SHA256, p.Locked, p.Replaces})
	}
	for _, name := range gobuild.Names(s.programs) {
		sum, err := s.memo.File(s.programs[name])
		if err != nil {
			return err
		}
		manifest.Programs[name] = sum
	}
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return fmt.Errorf("render manifest: %w", err)
	}
	return s.root.Bytes(layout.Manifest, 0o644, append(text, '\n'))
}

// putImages describes the layers as images. The tar of a layer is hashed only
// when the layer changed.
func putImages(_ context.Context, s *state) error {
	layers := map[string]oci.Layer{}
	for _, name := range []string{"base", "nft", "iptables", "bundle", "pause"} {
		dir := path.Join(layout.Layers, name)
		digest, err := s.memo.Digest(&s.root, dir)
		if err != nil {
			return err
		}
		key := "layer " + digest
		var layer oci.Layer
		if was, ok := s.memo.Get(key); !ok || json.Unmarshal([]byte(was), &layer) != nil {
			if layer, err = oci.HashLayer(&s.root, dir); err != nil {
				return err
			}
			text, err := json.Marshal(layer)
			if err != nil {
				return err
			}
			s.memo.Set(key, string(text))
		}
		layers[name] = layer
	}
	return oci.Put(&s.root, oci.Config{
		Arch: s.config.Arch, Dir: layout.Images, LayersDir: layout.Layers, Layers: layers, Images: systemImages(s.source.Modules),
	})
}
