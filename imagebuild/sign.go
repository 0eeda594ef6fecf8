package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/pkcs7"
)

// trust is what a build is told about signatures.
type trust struct {
	key, cert string // PEM files of the pair that signs; both or neither
}

func (t *trust) flags(f *flag.FlagSet) {
	f.StringVar(&t.key, "sign-key", os.Getenv("SIGN_KEY"), "PEM RSA key that signs boot loader and kernel for Secure Boot")
	f.StringVar(&t.cert, "sign-cert", os.Getenv("SIGN_CERT"), "its PEM certificate")
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
