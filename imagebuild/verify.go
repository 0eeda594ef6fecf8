package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"keelson/imagebuild/grub"
	"keelson/imagebuild/inspect"
	"keelson/imagebuild/iso"
	"keelson/imagebuild/pkcs7"
	"keelson/imagebuild/tree"
	"keelson/init/layout"
)

// What verify finds has exit codes of its own; everything else ends with 1.
var (
	errDamaged   = errors.New("the image is not what was built")
	errUntrusted = errors.New("the image is intact, but not signed by that certificate")
)

func exitCode(err error) int {
	switch {
	case errors.Is(err, errDamaged):
		return 2
	case errors.Is(err, errUntrusted):
		return 3
	}
	return 1
}

// putSums puts the hashes of everything beside the root on the ESP, for verify.
func (s *state) putSums(files *tree.Tree, core grub.Core) error {
	entries, err := files.Entries()
	if err != nil {
		return err
	}
	sums := map[string]string{}
	for _, e := range entries {
		if !e.Mode.IsRegular() {
			continue
		}
		in, err := e.Open()
		if err != nil {
			return fmt.Errorf("hash %s: %w", e.Path, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, in)
		in.Close()
		if err != nil {
			return fmt.Errorf("hash %s: %w", e.Path, err)
		}
		sums[e.Path] = hex.EncodeToString(h.Sum(nil))
	}
	root, err := os.Open(s.part("root.erofs"))
	if err != nil {
		return fmt.Errorf("hash the superblock of the hash tree: %w", err)
	}
	defer root.Close()
	areas := inspect.Areas{BootCode: core.Boot, Core: core.Image, Superblock: make([]byte, layout.BlockSize)}
	if core.CD != nil {
		areas.CD = iso.Loaded(core.CD)
	}
	if _, err := root.ReadAt(areas.Superblock, int64(s.verity.HashOffset())); err != nil {
		return fmt.Errorf("hash the superblock of the hash tree: %w", err)
	}
	return files.Bytes(inspect.SumsPath, 0o644, inspect.RenderSums(sums, areas))
}

// verifyImage says whether an image is intact and what is in it.
func verifyImage(name, certFile string, stdout io.Writer) error {
	var trusted *x509.Certificate
	if certFile != "" {
		text, err := os.ReadFile(certFile)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		list, err := pkcs7.ParseCertificates(text)
		if err != nil {
			return fmt.Errorf("verify: certificate %s: %w", certFile, err)
		}
		trusted = list[0]
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer f.Close()
	r, err := inspect.Image(f, trusted)
	if err != nil {
		return err
	}
	var b strings.Builder
	if r.Release != nil {
		fmt.Fprintf(&b, "%s, build %s\n", r.Release["PRETTY_NAME"], r.Release["BUILD_ID"])
		fmt.Fprintf(&b, "kernel %s, %d Debian packages, %d components in the bill of materials\n", r.Kernel, r.Packages, r.SBOM)
	}
	switch {
	case r.Signer == nil:
		b.WriteString("not signed for Secure Boot\n")
	default:
		fmt.Fprintf(&b, "signed by %s\n", r.Signer.Subject)
	}
	for _, file := range r.Added {
		fmt.Fprintf(&b, "added since: %s on the ESP\n", file)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "damaged: %s\n", p)
	}
	if len(r.Problems) == 0 {
		b.WriteString("intact\n")
	}
	if _, err := io.WriteString(stdout, b.String()); err != nil {
		return err
	}
	switch {
	case len(r.Problems) > 0:
		return fmt.Errorf("verify %s: %w", name, errDamaged)
	case trusted != nil && !r.Trusted:
		return fmt.Errorf("verify %s: %w", name, errUntrusted)
	}
	return nil
}
