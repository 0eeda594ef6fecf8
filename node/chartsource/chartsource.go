// Package chartsource gets the archive of a Helm chart from where a HelmChart object says that it is: its own
// spec.chartContent, a file of the image or of this server, a web address, a repository with an index, or an OCI registry.
//
//   - `spec.chart: /usr/lib/keelson/charts/<file>.tgz` is read from the image when it is beneath that folder.
//   - `https://%{KUBERNETES_API}%/static/charts/<file>.tgz`, RKE2's form, is read from <server>/static, where RKE2's users put
//     charts, and then from the image. No other path of this machine is ever read.
//   - `oci://host/path/chart` goes through registries.yaml: containerd's own resolver reads the folders that node/containerd
//     has rendered of it, so that a chart comes from where an image of that registry would.
//
// It installs nothing, keeps nothing, and runs nothing of what it gets: node/helmchart gives the archive to node/release.
// Everything is bounded in size and time, and no answer's content goes into a message: it may come from an address that only
// this machine reaches.
package chartsource

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"keelson/node/containerd"
)

// Dir is where the image has its charts.
const Dir = "/usr/lib/keelson/charts"

// apiPlaceholder stands for the cluster's API server in RKE2's addresses of charts (klipper-helm, entry).
const apiPlaceholder = "%{KUBERNETES_API}%"

const (
	// maxArchive bounds a packed chart: unpacked, Helm takes no more than 100 MiB.
	maxArchive = 20 << 20
	// maxIndex bounds a repository's index; the longest well-known ones have 20 MiB.
	maxIndex = 48 << 20
	// within bounds one chart's fetching with all its answers.
	within = 2 * time.Minute
)

// Request says which chart is wanted, in the words of HelmChart's spec.
type Request struct {
	Chart, Version, Repo string
	Content              string // base64

	CA                 []byte // PEM, besides the machine's own
	Username, Password string // for Repo, or for Chart where that is an address
	PassCredentials    bool   // to wherever an index or a redirection leads
	SkipVerify         bool
	PlainHTTP          bool
	DockerConfig       []byte // .dockerconfigjson
}

// Config says where charts may come from.
type Config struct {
	Dir    string // of the image; Dir where nothing is tested
	Static string // <server>/static
	Hosts  string // containerd's folder of registries: containerd.RegistryDir

	// Registries gives registries.yaml, for its credentials: Hosts has none.
	Registries func() (containerd.Registries, error)
}

// Source gets charts.
type Source struct {
	cfg    Config
	within time.Duration
}

// New checks the configuration.
func New(cfg Config) (*Source, error) {
	if cfg.Dir == "" || cfg.Static == "" || cfg.Hosts == "" || cfg.Registries == nil {
		return nil, errors.New("chart source: the folders of charts, static files and registries, and registries.yaml are needed")
	}
	return &Source{cfg: cfg, within: within}, nil
}

// form is where a request's chart is.
type form int

const (
	formContent form = iota
	formFile
	formStatic
	formWeb
	formRepo
	formRegistry
)

// form tells where a chart is, and refuses what names no chart.
func (r Request) form() (form, error) {
	switch {
	case r.Content != "":
		return formContent, nil
	case r.Chart == "":
		return 0, errors.New("spec.chart: is empty; give a chart, or spec.chartContent")
	case path.IsAbs(r.Chart):
		return formFile, nil
	case strings.Contains(r.Chart, apiPlaceholder):
		return formStatic, nil
	case strings.HasPrefix(r.Chart, "oci://"):
		return formRegistry, nil
	case strings.HasPrefix(r.Chart, "https://"), strings.HasPrefix(r.Chart, "http://"):
		return formWeb, nil
	case strings.Contains(r.Chart, "://"):
		scheme, _, _ := strings.Cut(r.Chart, "://")
		return 0, fmt.Errorf("spec.chart: the scheme %q is none that charts come by; they come by https, http and oci", scheme)
	case r.Repo == "":
		return 0, fmt.Errorf("spec.repo: is empty, and chart %q is the name of one in a repository; give its address", r.Chart)
	case strings.HasPrefix(r.Repo, "oci://"):
		return formRegistry, nil
	}
	return formRepo, nil
}

// String tells where the chart comes from, for people.
func (r Request) String() string {
	kind, err := r.form()
	version := "the latest version"
	if r.Version != "" {
		version = "version " + r.Version
	}
	switch {
	case err != nil:
		return "nowhere"
	case kind == formContent:
		return "spec.chartContent"
	case kind == formRepo:
		return fmt.Sprintf("%s of %s from %s", version, r.Chart, redacted(r.Repo))
	case kind == formRegistry:
		return version + " of " + r.reference()
	case kind == formWeb:
		return redacted(r.Chart)
	}
	return r.Chart
}

// redacted is an address without a password that somebody put into it.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	return u.Redacted()
}

// Identify returns a text that changes when another chart is asked for. It asks nobody: of a chart that is elsewhere it is
// the name, so that what a name stands for is looked up when the object changes and not each time it is looked at.
func (s *Source) Identify(r Request) (string, error) {
	kind, err := r.form()
	if err != nil {
		return "", err
	}
	switch kind {
	case formContent, formFile, formStatic:
		archive, err := s.local(r, kind)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(archive)
		return "sha256:" + hex.EncodeToString(sum[:]), nil
	}
	return strings.Join([]string{r.Chart, r.Version, r.Repo}, "\n"), nil
}

// Load returns the chart's archive, a .tgz. Whether it is a chart is for Helm to say.
func (s *Source) Load(ctx context.Context, r Request) ([]byte, error) {
	kind, err := r.form()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.within, fmt.Errorf("it took longer than %s", s.within))
	defer cancel()
	var archive []byte
	switch kind {
	case formContent, formFile, formStatic:
		archive, err = s.local(r, kind)
	case formWeb:
		archive, err = s.web(ctx, r)
	case formRepo:
		archive, err = s.repository(ctx, r)
	case formRegistry:
		archive, err = s.registry(ctx, r)
	}
	if err != nil {
		return nil, fmt.Errorf("get chart, %s: %w", r, because(ctx, err))
	}
	return archive, nil
}

// because adds why a context ended to an error that has come of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return errors.Join(err, cause)
	}
	return err
}

// local is a chart that is in the object or on this machine.
func (s *Source) local(r Request, kind form) ([]byte, error) {
	switch kind {
	case formFile:
		return s.file(r.Chart)
	case formStatic:
		return s.static(r.Chart)
	}
	if len(r.Content) > base64.StdEncoding.EncodedLen(maxArchive) {
		return nil, fmt.Errorf("spec.chartContent: is longer than a chart of %d MiB", maxArchive>>20)
	}
	archive, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(r.Content), ""))
	if err != nil {
		return nil, fmt.Errorf("spec.chartContent: is not in base64: %w", err)
	}
	return archive, nil
}
