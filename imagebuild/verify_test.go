package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/grub"
	"keelson/imagebuild/inspect"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/tree"
	"keelson/init/layout"
)

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("no such file"), 1},
		{fmt.Errorf("verify x: %w", errDamaged), 2},
		{fmt.Errorf("verify x: %w", errUntrusted), 3},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: got %d, want %d", c.err, got, c.want)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	key, _ := testkey.Files(t, testkey.New(t, "signer"))
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", []string{"verify"}, "one raw image or ISO"},
		{"absent", []string{"verify", filepath.Join(dir, "none")}, "none"},
		{"text", []string{"verify", text}, "no disk image"},
		{"certificate absent", []string{"verify", "--cert", filepath.Join(dir, "none"), text}, "none"},
		{"certificate is a key", []string{"verify", "--cert", key, text}, "want a CERTIFICATE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(context.Background(), c.args, &out, &out)
			if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != 1 {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestPutSums(t *testing.T) {
	s, _ := newState(t)
	s.verity = layout.Verity{DataBlocks: 1}
	if err := os.WriteFile(s.part("root.erofs"), make([]byte, 2*layout.BlockSize), 0o644); err != nil {
		t.Fatal(err)
	}
	var files tree.Tree
	if err := files.Bytes("/EFI/a", 0o644, []byte("image")); err != nil {
		t.Fatal(err)
	}
	if err := s.putSums(&files, grub.Core{Boot: []byte("b"), Image: []byte("c")}); err != nil {
		t.Fatal(err)
	}
	e, ok := files.Get(inspect.SumsPath)
	if !ok {
		t.Fatal("no hashes")
	}
	in, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(in); err != nil {
		t.Fatal(err)
	}
	// echo -n image | sha256sum
	if want := "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d  /EFI/a\n"; !strings.Contains(text.String(), want) || strings.Count(text.String(), "\n") != 4 {
		t.Errorf("got\n%s", &text)
	}
	if err := os.Remove(s.part("root.erofs")); err != nil {
		t.Fatal(err)
	}
	if err := s.putSums(&files, grub.Core{}); err == nil {
		t.Error("without a root: got no error")
	}
}
