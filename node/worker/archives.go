package worker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// archivesPath is where the builder puts the archives that an image definition names.
const archivesPath = "/usr/lib/keelson/archives"

// archiveLabel is on every image that came from an archive of the root, and says from which.
const archiveLabel = "keelson.io/archive"

// importArchives gives containerd the images that are shipped with this machine's own. They are pinned, so that the
// kubelet never takes them away. What is there already costs one question. A pod whose image could not be imported
// has it pulled, so a failure is told and stops nothing.
func (w *Worker) importArchives(ctx context.Context) {
	files, err := filepath.Glob(filepath.Join(w.programs.archives, "*.tar"))
	if err != nil {
		w.cfg.Log.Error("shipped images", "error", err)
		return
	}
	for _, file := range files {
		if err := w.importArchive(ctx, file); err != nil {
			w.cfg.Log.Error("shipped images", "archive", file, "error", err)
		}
	}
}

func (w *Worker) importArchive(ctx context.Context, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("look at archive: %w", err)
	}
	// The root is verified: name, size and the image's time say which archive it is.
	id := fmt.Sprintf("%s:%d:%d", filepath.Base(file), info.Size(), info.ModTime().Unix())
	have, err := w.ctr(ctx, "images", "ls", "-q", fmt.Sprintf("labels.%q==%q", archiveLabel, id))
	if err != nil || strings.TrimSpace(have) != "" {
		return err
	}
	_, err = w.ctr(ctx, "images", "import", "--local", "--snapshotter", "keelson",
		"--label", archiveLabel+"="+id, "--label", "io.cri-containerd.pinned=pinned", file)
	return err
}

// ctr runs containerd's own client in the namespace of the CRI.
func (w *Worker) ctr(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.programs.ctr, append([]string{"--address", w.programs.socket, "--namespace", "k8s.io"}, args...)...)
	cmd.Env = Environment(w.cfg.Environ, "")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args[:2], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
