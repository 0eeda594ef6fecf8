package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"keelson/imagebuild/input/gobuild"
)

// source is what the build knows about the sources it is made from.
type source struct {
	Epoch   time.Time // the one time of everything in the image
	Commit  string
	Version string
	Modules map[string]string

	// The bundle is stamped with the last commit that touched its sources,
	// so that a commit elsewhere does not link 200 MB anew.
	BundleEpoch  time.Time
	BundleCommit string
}

func readSource(ctx context.Context, config Config) (source, error) {
	gomod, err := os.ReadFile("go.mod")
	if err != nil {
		return source{}, fmt.Errorf("read sources: %w: start imagebuild in the folder of go.mod", err)
	}
	s := source{Modules: gobuild.Modules(gomod)}
	if s.Commit, s.Epoch, err = lastCommit(ctx); err != nil {
		return source{}, err
	}
	if s.BundleCommit, s.BundleEpoch, err = lastCommit(ctx, "go.mod", "go.sum", "node"); err != nil {
		return source{}, err
	}
	if config.Epoch != "" {
		seconds, err := strconv.ParseInt(config.Epoch, 10, 64)
		if err != nil || seconds < 0 {
			return source{}, fmt.Errorf("SOURCE_DATE_EPOCH=%s: want seconds since 1970", config.Epoch)
		}
		s.Epoch = time.Unix(seconds, 0).UTC()
		s.BundleEpoch = s.Epoch
	}
	s.Version = s.Epoch.Format("20060102.150405")
	return s, nil
}

// lastCommit is the newest commit that touched the paths. Outside of a git
// checkout, as in an unpacked archive, the age of go.mod takes its place.
func lastCommit(ctx context.Context, paths ...string) (string, time.Time, error) {
	args := append([]string{"-c", "safe.directory=*", "log", "-1", "--format=%H %ct", "--"}, paths...)
	cmd := exec.CommandContext(ctx, "git", args...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Run(); err == nil {
		if hash, seconds, ok := strings.Cut(strings.TrimSpace(stdout.String()), " "); ok {
			if n, err := strconv.ParseInt(seconds, 10, 64); err == nil {
				return hash, time.Unix(n, 0).UTC(), nil
			}
		}
	}
	info, err := os.Stat("go.mod")
	if err != nil {
		return "", time.Time{}, fmt.Errorf("read sources: %w", err)
	}
	return "unknown", info.ModTime().UTC().Truncate(time.Second), nil
}

// osRelease renders os-release(5).
func (s source) osRelease() []byte {
	var b bytes.Buffer
	kubernetes := s.Modules["k8s.io/kubernetes"]
	fmt.Fprintf(&b, "NAME=\"Keelson\"\nID=keelson\nVERSION_ID=%s\nPRETTY_NAME=\"Keelson %s (Kubernetes %s)\"\n", s.Version, s.Version, kubernetes)
	fmt.Fprintf(&b, "IMAGE_ID=keelson\nIMAGE_VERSION=%s\nBUILD_ID=%s\n", s.Version, short(s.Commit))
	return b.Bytes()
}

func short(commit string) string { return commit[:min(12, len(commit))] }
