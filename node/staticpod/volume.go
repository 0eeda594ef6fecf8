package staticpod

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// certificateDirs returns the folders in which programs look for public CAs, where this machine has them.
func (s Server) certificateDirs() []string {
	var dirs []string
	for _, dir := range []string{"/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"} {
		if info, err := fs.Stat(s.Files, strings.TrimPrefix(dir, "/")); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// volumes mounts the component's folders, the files that its arguments name, and what the user adds. hash is SHA-256
// over the content of those files, in the order of their names: it puts a new certificate into the pod's identity.
func (s Server) volumes(def definition, args, extra []string) (volumes []corev1.Volume, mounts []corev1.VolumeMount, hash string, err error) {
	add := func(name, source, target string, kind corev1.HostPathType, readOnly bool) {
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: source, Type: &kind},
		}})
		mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: target, ReadOnly: readOnly})
	}
	for i, dir := range def.dirs {
		add(fmt.Sprintf("dir%d", i), dir, dir, corev1.HostPathDirectoryOrCreate, false)
	}
	files, sockets, err := s.named(def, args)
	if err != nil {
		return nil, nil, "", err
	}
	digest := sha256.New()
	mounted := 0
	for _, file := range files {
		if !slices.Contains(def.unhashed, file) {
			content, err := fs.ReadFile(s.Files, strings.TrimPrefix(file, "/"))
			if err != nil {
				return nil, nil, "", fmt.Errorf("read mounted file: %w", err)
			}
			digest.Write(content)
		}
		// A file below a mounted folder is seen through it, and is seen anew when it is replaced there.
		if !slices.ContainsFunc(def.dirs, func(dir string) bool { return strings.HasPrefix(file, dir+"/") }) {
			add(fmt.Sprintf("file%d", mounted), file, file, corev1.HostPathFile, true)
			mounted++
		}
	}
	for i, socket := range sockets {
		add(fmt.Sprintf("socket%d", i), socket, socket, corev1.HostPathSocket, false)
	}
	for i, text := range extra {
		m, err := s.extraMount(text)
		if err != nil {
			return nil, nil, "", err
		}
		add(fmt.Sprintf("mount%d", i), m.source, m.target, m.kind, m.readOnly)
	}
	return volumes, mounts, hex.EncodeToString(digest.Sum(nil)), nil
}

// named returns the files and sockets that def and the arguments name and that exist, each once, sorted.
func (s Server) named(def definition, args []string) (files, sockets []string, err error) {
	candidates := slices.Clone(def.files)
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		value = strings.TrimPrefix(value, "unix://")
		if !path.IsAbs(value) {
			continue
		}
		candidates = append(candidates, value)
		if strings.HasSuffix(name, "kubeconfig") {
			more, err := s.kubeconfigFiles(value)
			if err != nil {
				return nil, nil, err
			}
			candidates = append(candidates, more...)
		}
	}
	for _, candidate := range candidates {
		candidate = path.Clean(candidate)
		info, err := fs.Stat(s.Files, strings.TrimPrefix(candidate, "/"))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
			continue // a flag may name what the component itself makes, such as a log
		case err != nil:
			return nil, nil, fmt.Errorf("look at file of an argument: %w", err)
		case info.Mode()&fs.ModeSocket != 0:
			sockets = append(sockets, candidate)
		case info.Mode().IsRegular():
			files = append(files, candidate)
		}
	}
	slices.Sort(files)
	slices.Sort(sockets)
	return slices.Compact(files), slices.Compact(sockets), nil
}

// kubeconfigFiles returns the CA, certificate and key that a kubeconfig refers to.
func (s Server) kubeconfigFiles(file string) ([]string, error) {
	content, err := fs.ReadFile(s.Files, strings.TrimPrefix(file, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	var kubeconfig struct {
		Clusters []struct {
			Cluster struct {
				CA string `json:"certificate-authority"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Certificate string `json:"client-certificate"`
				Key         string `json:"client-key"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(content, &kubeconfig); err != nil {
		return nil, fmt.Errorf("parse kubeconfig %s: %w", file, err)
	}
	var files []string
	for _, c := range kubeconfig.Clusters {
		files = append(files, c.Cluster.CA)
	}
	for _, u := range kubeconfig.Users {
		files = append(files, u.User.Certificate, u.User.Key)
	}
	return slices.DeleteFunc(files, func(f string) bool { return !path.IsAbs(f) }), nil
}

type extraMount struct {
	source, target string
	kind           corev1.HostPathType
	readOnly       bool
}

// extraMount parses "source:destination[:ro|rw[:hostPathType]]".
func (s Server) extraMount(text string) (extraMount, error) {
	fail := func(why string) (extraMount, error) {
		return extraMount{}, fmt.Errorf("extra mount %q: %s; write source:destination[:ro|rw[:type]]", text, why)
	}
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 4 {
		return fail("it has " + fmt.Sprint(len(parts)) + " parts")
	}
	m := extraMount{source: path.Clean(parts[0]), target: path.Clean(parts[1]), kind: corev1.HostPathUnset}
	if !path.IsAbs(m.source) || !path.IsAbs(m.target) {
		return fail("a path is not absolute")
	}
	if len(parts) > 2 {
		switch parts[2] {
		case "ro":
			m.readOnly = true
		case "rw":
		default:
			return fail(fmt.Sprintf("%q is neither ro nor rw", parts[2]))
		}
	}
	if len(parts) > 3 {
		m.kind = corev1.HostPathType(parts[3])
		kinds := []corev1.HostPathType{corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile,
			corev1.HostPathFileOrCreate, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev}
		if !slices.Contains(kinds, m.kind) {
			return fail(fmt.Sprintf("%q is not a type of host path", parts[3]))
		}
		return m, nil
	}
	info, err := fs.Stat(s.Files, strings.TrimPrefix(m.source, "/"))
	switch {
	case err != nil, info.IsDir():
		m.kind = corev1.HostPathDirectoryOrCreate
	case info.Mode()&fs.ModeSocket != 0:
		m.kind = corev1.HostPathSocket
	case info.Mode().IsRegular():
		m.kind = corev1.HostPathFile
	}
	return m, nil
}
