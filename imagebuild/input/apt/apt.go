// Package apt drives the ordinary apt client with a state of its own, so that a build fetches Debian packages without root and
// without touching the host's package lists. Sources, keyrings, proxies and credentials are the host's; apt checks the archive's
// signature and every package's hash against it. The package installs nothing and never runs a package's scripts. Package input
// uses it.
package apt

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Config says where the client keeps its state and for what it fetches.
type Config struct {
	Dir        string   // private state folder, made when absent
	Etc        string   // the host's apt folder; /etc/apt when empty
	Suite      string   // Debian's code name, for instance bookworm
	Components []string // of the archive, besides those of the host's sources
	Arch       string   // Debian's name of the architecture
}

// Client is an apt client with private state. It is not safe for concurrent use: apt locks its folders.
type Client struct {
	dir  string
	arch string
}

// New lays out the private state folder.
func New(config Config) (*Client, error) {
	etc := config.Etc
	if etc == "" {
		etc = "/etc/apt"
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve apt state folder: %w", err)
	}
	list, deb822, err := Sources(etc, config.Suite, config.Components...)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "archives/partial", "cache", "sources", "preferences", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make apt state folder: %w", err)
		}
	}
	files := map[string][]byte{
		"status":               nil,
		"apt.conf":             conf(dir, config.Arch),
		"sources/host.list":    list,
		"sources/host.sources": deb822,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return nil, fmt.Errorf("write apt state: %w", err)
		}
	}
	return &Client{dir: dir, arch: config.Arch}, nil
}

// conf is read by apt after the host's own configuration (option -c), so it can take back what does not belong in a build:
// hooks that clean the host's cache, pins, indexes nobody reads here. Keys: apt.conf(5).
func conf(dir, arch string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear APT::Architectures;\n#clear Acquire::Languages;\n")
	set := func(key, value string) { fmt.Fprintf(&b, "%s %q;\n", key, value) }
	set("APT::Architecture", arch)
	set("APT::Architectures", arch)
	set("APT::Sandbox::User", "root") // the private folder need not be open to the _apt user
	set("APT::Get::AllowUnauthenticated", "false")
	set("Acquire::AllowInsecureRepositories", "false")
	set("Acquire::AllowWeakRepositories", "false")
	set("Acquire::AllowDowngradeToInsecureRepositories", "false")
	set("Acquire::Languages", "none")
	set("Acquire::Retries", "3")
	for _, index := range []string{"deb::DEP-11", "deb::DEP-11-icons-small", "deb::DEP-11-icons", "deb::DEP-11-icons-hidpi", "deb::Contents-deb", "deb::CNF"} {
		set("Acquire::IndexTargets::"+index+"::DefaultEnabled", "false")
	}
	set("Dir::State", dir)
	set("Dir::State::lists", dir+"/lists")
	set("Dir::State::status", dir+"/status")
	set("Dir::Cache", dir+"/cache")
	set("Dir::Cache::archives", dir+"/archives")
	set("Dir::Log", dir+"/log")
	set("Dir::Etc::sourcelist", "/dev/null")
	set("Dir::Etc::sourceparts", dir+"/sources")
	set("Dir::Etc::preferences", "/dev/null")
	set("Dir::Etc::preferencesparts", dir+"/preferences")
	return b.Bytes()
}

// Update fetches the indexes; apt refuses those whose signature does not hold. An index that cannot be had is an error: building
// from stale lists would take old packages in silence.
func (c *Client) Update(ctx context.Context) error {
	_, err := c.run(ctx, "", "apt-get", "update", "-q", "--error-on=any")
	return err
}

// Candidates returns the newest version of each name that the archive has. Names it does not have are absent from the result.
func (c *Client) Candidates(ctx context.Context, names ...string) (map[string]Package, error) {
	packages, err := c.show(ctx, append([]string{"--no-all-versions"}, names...))
	if err != nil {
		return nil, err
	}
	out := make(map[string]Package, len(packages))
	for _, p := range packages {
		out[p.Name] = p
	}
	return out, nil
}

// Versions returns every version of the names that the archive has.
func (c *Client) Versions(ctx context.Context, names ...string) ([]Package, error) {
	return c.show(ctx, names)
}

func (c *Client) show(ctx context.Context, args []string) ([]Package, error) {
	// apt-cache exits 100 when one of several names is unknown and still prints the others.
	text, err := c.run(ctx, "", "apt-cache", append([]string{"show"}, args...)...)
	if err != nil && !strings.Contains(err.Error(), "No packages found") && !strings.Contains(err.Error(), "Unable to locate package") {
		return nil, err
	}
	return LoadIndex(text)
}

// Download fetches the packages into dir under names of apt's choosing. apt has checked each against the signed index.
func (c *Client) Download(ctx context.Context, dir string, packages ...Package) error {
	args := []string{"download", "-q"}
	for _, p := range packages {
		args = append(args, p.Name+"="+p.Version)
	}
	_, err := c.run(ctx, dir, "apt-get", args...)
	return err
}

func (c *Client) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-c=" + c.dir + "/apt.conf"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %s %s: %w: %s", program, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
