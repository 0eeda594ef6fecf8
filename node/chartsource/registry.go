package chartsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mediaChart is the layer of a manifest that is a chart (https://helm.sh/docs/topics/registries/).
const mediaChart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

const (
	maxManifest = 4 << 20
	maxTags     = 4 << 20 // one page of tags
	maxPages    = 100
)

// docker.io is the name that registries.yaml has for it; people write that of its server as well.
const (
	dockerName   = "docker.io"
	dockerServer = "registry-1.docker.io"
)

// reference is a chart's name in a registry, without oci:// and version.
func (r Request) reference() string {
	name := r.Chart
	if !strings.HasPrefix(name, "oci://") {
		name = strings.TrimSuffix(r.Repo, "/") + "/" + name
	}
	name = strings.TrimPrefix(name, "oci://")
	if rest, ok := strings.CutPrefix(name, dockerServer+"/"); ok {
		name = dockerName + "/" + rest
	}
	return name
}

// object splits a reference into host, repository and what stands behind it: ":tag", "@digest", both or nothing.
func object(reference string) (host, repository, suffix string, err error) {
	match := regexp.MustCompile(`^([A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?)/([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)((?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?)$`).
		FindStringSubmatch(reference)
	if match == nil {
		return "", "", "", fmt.Errorf("spec.chart: oci://%s is not of the form oci://host/path/chart", reference)
	}
	return match[1], match[2], match[3], nil
}

// registry gets a chart from an OCI registry, by way of its mirrors.
func (s *Source) registry(ctx context.Context, r Request) ([]byte, error) {
	host, repository, suffix, err := object(r.reference())
	if err != nil {
		return nil, err
	}
	hosts, err := s.hosts(ctx, r)
	if err != nil {
		return nil, err
	}
	if suffix == "" {
		tag, err := s.tag(ctx, hosts, host, repository, r.Version)
		if err != nil {
			return nil, err
		}
		suffix = ":" + tag
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: hosts})
	name, target, err := resolver.Resolve(ctx, host+"/"+repository+suffix)
	if err != nil {
		return nil, err
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return nil, err
	}
	content, err := fetch(ctx, fetcher, target, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("its manifest: %w", err)
	}
	layer, err := layerOf(content)
	if err != nil {
		return nil, err
	}
	return fetch(ctx, fetcher, layer, maxArchive)
}

// layerOf reads in a manifest which blob the chart is.
func layerOf(content []byte) (ocispec.Descriptor, error) {
	var manifest ocispec.Manifest
	if err := json.Unmarshal(content, &manifest); err != nil {
		return ocispec.Descriptor{}, errors.New("its manifest is not in JSON")
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != mediaChart {
			continue
		}
		if err := layer.Digest.Validate(); err != nil {
			return ocispec.Descriptor{}, errors.New("its manifest gives the chart a digest that is none")
		}
		return ocispec.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size}, nil
	}
	return ocispec.Descriptor{}, errors.New("it is no chart: its manifest has no layer of type " + mediaChart)
}

// fetch gets a blob, which must be what its descriptor says.
func fetch(ctx context.Context, from remotes.Fetcher, d ocispec.Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, fmt.Errorf("has %d MiB, and %d are the most that is taken", d.Size>>20, most>>20)
	}
	body, err := from.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := limited(body, most)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(content); d.Digest.Algorithm() != digest.SHA256 || got != d.Digest {
		return nil, fmt.Errorf("what came has digest %s, and not %s", got, d.Digest)
	}
	return content, nil
}

// hosts tells where a registry is and how to speak to it: as containerd would, but for what the request says itself.
func (s *Source) hosts(ctx context.Context, r Request) (docker.RegistryHosts, error) {
	credentials, err := s.credentials(r)
	if err != nil {
		return nil, err
	}
	options := dockerconfig.HostOptions{
		HostDir: dockerconfig.HostDirFromRoot(s.cfg.Hosts), Credentials: credentials,
		UpdateClient: func(c *http.Client) error {
			c.CheckRedirect = Request{PlainHTTP: r.PlainHTTP}.redirect
			if t, ok := c.Transport.(*http.Transport); ok {
				t.DisableKeepAlives, t.ResponseHeaderTimeout = true, time.Minute
			}
			return nil
		},
	}
	if len(r.CA) > 0 || r.SkipVerify {
		if options.DefaultTLS, err = r.trust(); err != nil {
			return nil, err
		}
	}
	if r.PlainHTTP {
		options.DefaultScheme = "http"
	}
	return dockerconfig.ConfigureHosts(ctx, options), nil
}

// tag looks up which tag a range of versions stands for. A registry keeps the plus of a version as an underscore.
func (s *Source) tag(ctx context.Context, registries docker.RegistryHosts, host, repository, constraint string) (string, error) {
	if exact(constraint) {
		return strings.ReplaceAll(constraint, "+", "_"), nil
	}
	hosts, err := registries(host)
	if err != nil {
		return "", err
	}
	ctx = docker.WithScope(ctx, "repository:"+repository+":pull")
	var problems []error
	for _, h := range hosts {
		if !h.Capabilities.Has(docker.HostCapabilityResolve) {
			continue
		}
		tags, err := list(ctx, h, host, repository)
		if err != nil {
			problems = append(problems, fmt.Errorf("list versions at %s: %w", h.Host, err))
			continue
		}
		for i := range tags {
			tags[i] = strings.ReplaceAll(tags[i], "_", "+")
		}
		best, err := pick(tags, constraint)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		return strings.ReplaceAll(tags[best], "+", "_"), nil
	}
	return "", errors.Join(problems...)
}

// list asks one registry for a repository's tags, page by page (OCI distribution specification, "Listing tags").
func list(ctx context.Context, h docker.RegistryHost, registry, repository string) ([]string, error) {
	next := &url.URL{Scheme: h.Scheme, Host: h.Host, Path: strings.TrimSuffix(h.Path, "/") + "/" + repository + "/tags/list"}
	if registry != h.Host && !(registry == dockerName && h.Host == dockerServer) {
		next.RawQuery = url.Values{"ns": {registry}}.Encode() // a mirror of many, as containerd asks it
	}
	var all []string
	for range maxPages {
		answer, err := ask(ctx, h, next)
		if err != nil {
			return nil, err
		}
		content, err := limited(answer.Body, maxTags)
		answer.Body.Close()
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("answered %s", answer.Status)
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(content, &page); err != nil {
			return nil, errors.New("answered no list in JSON")
		}
		all = append(all, page.Tags...)
		link := nextPage(answer.Header.Get("Link"))
		if link == "" {
			return all, nil
		}
		to, err := next.Parse(link)
		if err != nil || to.Host != next.Host || to.Scheme != next.Scheme {
			return nil, errors.New("says that its list goes on elsewhere")
		}
		next = to
	}
	return nil, fmt.Errorf("has more than %d pages of tags", maxPages)
}

// nextPage reads a Link header (RFC 8288) of the one form that registries send.
func nextPage(header string) string {
	address, parameters, ok := strings.Cut(header, ">")
	address, opened := strings.CutPrefix(strings.TrimSpace(address), "<")
	if !ok || !opened || !strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
		return ""
	}
	return address
}

// ask sends one request, and once more with the credentials that the first answer wants.
func ask(ctx context.Context, h docker.RegistryHost, address *url.URL) (*http.Response, error) {
	for again := true; ; again = false {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
		if err != nil {
			return nil, err
		}
		for name, values := range h.Header {
			req.Header[name] = values
		}
		if h.Authorizer != nil {
			if err := h.Authorizer.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
		answer, err := h.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusUnauthorized || !again || h.Authorizer == nil {
			return answer, nil
		}
		_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
		answer.Body.Close()
		if err := h.Authorizer.AddResponses(ctx, []*http.Response{answer}); err != nil {
			return nil, err
		}
	}
}
