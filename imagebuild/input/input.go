// Package input gets what an image is made of: Debian packages, pinned by a lock file and kept in a cache by their hash. Go
// binaries come from package gobuild. It never changes the host and never unpacks more than the files of a package; package apt
// fetches, package deb unpacks, and the builder's stages read the folders that come out.
package input

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"keelson/imagebuild/input/apt"
	"keelson/imagebuild/input/deb"
)

// Archive is what Packages needs of the archive; *apt.Client is one.
type Archive interface {
	Update(ctx context.Context) error
	Candidates(ctx context.Context, names ...string) (map[string]apt.Package, error)
	Versions(ctx context.Context, names ...string) ([]apt.Package, error)
	Download(ctx context.Context, dir string, packages ...apt.Package) error
}

// Package is one package at hand.
type Package struct {
	apt.Package
	Want     string // the line of the list that asked for it
	Locked   bool   // it is the one that the lock names
	Replaces string // version that the lock names where the archive no longer has it
	Dir      string // its unpacked files
}

// Config of Packages.
type Config struct {
	List   List
	Lock   []apt.Package
	Strict bool                    // refuse what is not in the lock
	Cache  string                  // cache folder
	Open   func() (Archive, error) // called only when something is not in the cache
	Log    *slog.Logger
}

// Packages resolves a list against a lock and has the packages ready.
type Packages struct {
	config   Config
	archive  Archive
	versions []apt.Package // all that the archive has of what is locked
}

// New returns the packages of a config.
func New(config Config) *Packages { return &Packages{config: config} }

// Ensure returns every package of the list, unpacked in the cache. Where all are cached no client runs. A locked version that
// the archive dropped is replaced by the newest one, and a line in the log says so.
func (p *Packages) Ensure(ctx context.Context) ([]Package, error) {
	resolved, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	var absent []apt.Package
	for _, r := range resolved {
		if !p.cached(r.SHA256) {
			absent = append(absent, r.Package)
		}
	}
	if len(absent) > 0 {
		if err := p.download(ctx, absent); err != nil {
			return nil, err
		}
	}
	for i := range resolved {
		if resolved[i].Dir, err = p.unpack(resolved[i].Package); err != nil {
			return nil, err
		}
	}
	return resolved, nil
}

// Newest returns the newest version of every package of the list: what a new lock holds.
func (p *Packages) Newest(ctx context.Context) ([]apt.Package, error) {
	var names []string
	for _, want := range p.config.List.Wants {
		names = append(names, want.Name)
	}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	found, err := p.archive.Candidates(ctx, names...)
	if err != nil {
		return nil, err
	}
	var out []apt.Package
	for _, want := range p.config.List.Wants {
		newest, ok := found[want.Name]
		if !ok || want.Pattern != "" {
			if newest, err = p.newest(ctx, want); err != nil {
				return nil, err
			}
		}
		out = append(out, newest)
	}
	return out, nil
}

// resolve decides which version of each package to take.
func (p *Packages) resolve(ctx context.Context) ([]Package, error) {
	taken, err := p.loadTaken()
	if err != nil {
		return nil, err
	}
	var out []Package
	substituted := false
	for _, want := range p.config.List.Wants {
		locked, ok := find(p.config.Lock, want)
		if !ok && p.config.Strict {
			return nil, fmt.Errorf("package %s is not in the lock: run `make lock`", want.Name)
		}
		if ok {
			gone, err := p.gone(ctx, locked, taken, want)
			if err != nil {
				return nil, err
			}
			if !gone {
				out = append(out, Package{Package: locked, Want: want.Name, Locked: true})
				continue
			}
			if p.config.Strict {
				return nil, fmt.Errorf("package %s %s is in the lock and no longer in the archive: run `make lock`, or build without LOCKED=1", locked.Name, locked.Version)
			}
		}
		newest, have := find(taken, want)
		if !have || !p.cached(newest.SHA256) {
			if newest, err = p.newest(ctx, want); err != nil {
				return nil, err
			}
		}
		substituted = true
		p.config.Log.Warn(substitution(want, locked, newest))
		out = append(out, Package{Package: newest, Want: want.Name, Replaces: locked.Version})
	}
	if substituted {
		return out, p.storeTaken(out)
	}
	return out, nil
}

func substitution(want Want, locked, newest apt.Package) string {
	if locked.Version == "" {
		return fmt.Sprintf("package %s is not in the lock: took %s %s, which the archive's signature vouches for", want.Name, newest.Name, newest.Version)
	}
	return fmt.Sprintf("package %s %s of the lock is gone from the archive: took %s %s, which the archive's signature vouches for", locked.Name, locked.Version, newest.Name, newest.Version)
}

// gone says whether the archive no longer has a locked version that is not in the cache either. A version that was found gone
// before is not asked for again as long as what was taken in its place is at hand.
func (p *Packages) gone(ctx context.Context, locked apt.Package, taken []apt.Package, want Want) (bool, error) {
	if p.cached(locked.SHA256) {
		return false, nil
	}
	if before, ok := find(taken, want); ok && p.cached(before.SHA256) && !p.config.Strict {
		return true, nil
	}
	if err := p.open(ctx); err != nil {
		return false, err
	}
	if p.versions == nil {
		// One question for all: each start of the client reads all indexes.
		var names []string
		for _, l := range p.config.Lock {
			names = append(names, l.Name)
		}
		var err error
		if p.versions, err = p.archive.Versions(ctx, names...); err != nil {
			return false, err
		}
	}
	for _, v := range p.versions {
		if v.Name != locked.Name || v.Version != locked.Version {
			continue
		}
		if v.SHA256 != locked.SHA256 {
			return false, fmt.Errorf("package %s %s: archive says SHA-256 %s, the lock says %s: one of them was tampered with", v.Name, v.Version, v.SHA256, locked.SHA256)
		}
		return false, nil
	}
	return true, nil
}

func (p *Packages) newest(ctx context.Context, want Want) (apt.Package, error) {
	if err := p.open(ctx); err != nil {
		return apt.Package{}, err
	}
	found, err := p.archive.Candidates(ctx, want.Name)
	if err != nil {
		return apt.Package{}, err
	}
	one, ok := found[want.Name]
	if !ok {
		return apt.Package{}, fmt.Errorf("package %s: the archive has none of that name in suite %s", want.Name, p.config.List.Suite)
	}
	if want.Pattern == "" {
		return one, nil
	}
	for _, name := range one.Depends {
		if !want.matches(name) {
			continue
		}
		if found, err = p.archive.Candidates(ctx, name); err != nil {
			return apt.Package{}, err
		}
		if real, ok := found[name]; ok {
			return real, nil
		}
	}
	return apt.Package{}, fmt.Errorf("package %s %s: none of its dependencies %v matches %s", one.Name, one.Version, one.Depends, want.Pattern)
}

// open starts the client and brings its indexes up to date, once.
func (p *Packages) open(ctx context.Context) error {
	if p.archive != nil {
		return nil
	}
	p.config.Log.Info("reading Debian's package lists")
	archive, err := p.config.Open()
	if err != nil {
		return err
	}
	if err := archive.Update(ctx); err != nil {
		return err
	}
	p.archive = archive
	return nil
}

func (p *Packages) download(ctx context.Context, absent []apt.Package) error {
	if err := p.open(ctx); err != nil {
		return err
	}
	var size int64
	for _, a := range absent {
		size += a.Size
	}
	p.config.Log.Info(fmt.Sprintf("fetching %d Debian packages, %d MB", len(absent), (size+999_999)/1_000_000))
	if err := os.MkdirAll(filepath.Join(p.config.Cache, "deb"), 0o755); err != nil {
		return fmt.Errorf("make package cache: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Join(p.config.Cache, "deb"), ".fetch-")
	if err != nil {
		return fmt.Errorf("make package cache: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := p.archive.Download(ctx, dir, absent...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return fmt.Errorf("look for packages: %w", err)
	}
	for _, name := range files {
		sum, err := HashFile(name)
		if err != nil {
			return err
		}
		if err := os.Rename(name, p.file(sum)); err != nil {
			return fmt.Errorf("keep package: %w", err)
		}
	}
	for _, a := range absent {
		if !p.cached(a.SHA256) {
			return fmt.Errorf("package %s %s: no fetched file has SHA-256 %s", a.Name, a.Version, a.SHA256)
		}
	}
	return nil
}

func (p *Packages) unpack(one apt.Package) (string, error) {
	dir := filepath.Join(p.config.Cache, "unpacked", one.SHA256)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for package %s: %w", one.Name, err)
	}
	p.config.Log.Info(fmt.Sprintf("unpacking %s %s", one.Name, one.Version))
	// The cache may have been damaged since the file came in.
	sum, err := HashFile(p.file(one.SHA256))
	if err != nil {
		return "", err
	}
	if sum != one.SHA256 {
		return "", fmt.Errorf("package %s: %s is damaged (SHA-256 %s): remove it and build again", one.Name, p.file(one.SHA256), sum)
	}
	f, err := os.Open(p.file(one.SHA256))
	if err != nil {
		return "", fmt.Errorf("open package %s: %w", one.Name, err)
	}
	defer f.Close()
	if err := deb.Unpack(f, dir); err != nil {
		return "", fmt.Errorf("unpack package %s: %w", one.Name, err)
	}
	return dir, nil
}

func (p *Packages) file(sum string) string {
	return filepath.Join(p.config.Cache, "deb", sum+".deb")
}

func (p *Packages) cached(sum string) bool {
	st, err := os.Stat(p.file(sum))
	return err == nil && st.Mode().IsRegular()
}

// takenFile remembers, for one lock, what was taken in place of versions that are gone.
func (p *Packages) takenFile() string {
	sum := sha256.Sum256(RenderLock(p.config.Lock))
	return filepath.Join(p.config.Cache, "deb", "taken-"+hex.EncodeToString(sum[:8])+".lock")
}

func (p *Packages) loadTaken() ([]apt.Package, error) {
	text, err := os.ReadFile(p.takenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read packages taken before: %w", err)
	}
	return LoadLock(p.takenFile(), text)
}

func (p *Packages) storeTaken(resolved []Package) error {
	var taken []apt.Package
	for _, r := range resolved {
		if !r.Locked {
			taken = append(taken, r.Package)
		}
	}
	if err := os.MkdirAll(filepath.Dir(p.takenFile()), 0o755); err != nil {
		return fmt.Errorf("make package cache: %w", err)
	}
	if err := os.WriteFile(p.takenFile(), RenderLock(taken), 0o644); err != nil {
		return fmt.Errorf("write packages taken: %w", err)
	}
	return nil
}

func find(packages []apt.Package, want Want) (apt.Package, bool) {
	for _, p := range packages {
		if want.matches(p.Name) {
			return p, true
		}
	}
	return apt.Package{}, false
}

// HashFile returns the SHA-256 of a file in hex.
func HashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("hash %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Find returns the package that answers a line of the list.
func Find(packages []Package, want string) (Package, error) {
	var names []string
	for _, p := range packages {
		if p.Want == want {
			return p, nil
		}
		names = append(names, p.Want)
	}
	return Package{}, fmt.Errorf("package %s is not among %s: add it to the package list", want, strings.Join(names, " "))
}
