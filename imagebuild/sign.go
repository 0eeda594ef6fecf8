package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/enroll"
	"keelson/imagebuild/pkcs7"
)

// trust is what a build is told about signatures.
type trust struct {
	key, cert string // PEM files of the pair that signs; both or neither
	enroll    string // folder of the keys that firmware is to enrol
}

func (t *trust) flags(f *flag.FlagSet) {
	f.StringVar(&t.key, "sign-key", os.Getenv("SIGN_KEY"), "PEM RSA key that signs boot loader and kernel for Secure Boot")
	f.StringVar(&t.cert, "sign-cert", os.Getenv("SIGN_CERT"), "its PEM certificate")
	f.StringVar(&t.enroll, "enroll", os.Getenv("KEELSON_ENROLL"), "folder of PK, KEK and db, as .auth files or with keys, that systemd-boot enrols")
}

// openSigner loads the pair that signs, nil where none is asked for.
func (t trust) openSigner() (*pkcs7.Pair, error) {
	switch {
	case t.key == "" && t.cert == "":
		return nil, nil
	case t.key == "":
		return nil, errors.New("SIGN_CERT (--sign-cert) without SIGN_KEY (--sign-key): give both or neither")
	case t.cert == "":
		return nil, errors.New("SIGN_KEY (--sign-key) without SIGN_CERT (--sign-cert): give both or neither")
	}
	return pkcs7.LoadPair(t.key, t.cert, time.Now())
}

// sign signs an EFI program where a signer was given.
func (s *state) sign(what string, program []byte) ([]byte, error) {
	if s.signer == nil {
		return program, nil
	}
	signed, err := authenticode.Sign(program, s.signer)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", what, err)
	}
	return signed, nil
}

// enrolled are the variables for the ESP by name, none where none are asked for.
func (s *state) enrolled() (map[string][]byte, error) {
	if s.config.Trust.enroll == "" {
		return nil, nil
	}
	list, err := enroll.Load(s.config.Trust.enroll, s.source.Epoch)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, v := range list {
		out[v.Name] = v.Auth
	}
	return out, nil
}

// trustKey stands for everything about signatures that goes to the ESP.
func (s *state) trustKey() (string, error) {
	variables, err := s.enrolled()
	if err != nil {
		return "", err
	}
	return keyOf(s.signer.ID(), string(variables["PK"]), string(variables["KEK"]), string(variables["db"])), nil
}

// makeKeys makes a set of keys to try Secure Boot with.
func makeKeys(dir string, stdout io.Writer) error {
	if err := enroll.Generate(dir, time.Now()); err != nil {
		return err
	}
	db := filepath.Join(dir, "db")
	_, err := fmt.Fprintf(stdout, "%s: PK, KEK and db. Use them: make image SIGN_KEY=%s.key SIGN_CERT=%s.crt KEELSON_ENROLL=%s\n", dir, db, db, dir)
	return err
}
