package enroll

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"keelson/imagebuild/pkcs7"
)

// Content is what an .auth file says.
type Content struct {
	Signer       *x509.Certificate
	Certificates []*x509.Certificate
}

// Parse reads the write of a variable and checks its signature; whether
// firmware accepts the signer is not known here.
func Parse(name string, auth []byte) (Content, error) {
	v, err := find(name)
	if err != nil {
		return Content{}, err
	}
	le := binary.LittleEndian
	if len(auth) < timeLen+certHeaderLen {
		return Content{}, fmt.Errorf("%d bytes: too short for an authenticated variable", len(auth))
	}
	stamp, rest := auth[:timeLen], auth[timeLen:]
	length := int64(le.Uint32(rest))
	if le.Uint16(rest[4:]) != certRevision || le.Uint16(rest[6:]) != certGUID || !bytes.Equal(rest[8:certHeaderLen], mixed(certPKCS7())) ||
		length < certHeaderLen || length > int64(len(rest)) {
		return Content{}, errors.New("no authenticated variable: want EFI_VARIABLE_AUTHENTICATION_2 with a PKCS #7 signature")
	}
	lists := rest[length:]
	signature, err := pkcs7.Verify(rest[certHeaderLen:length], signed(v, stamp, lists))
	if err != nil {
		return Content{}, fmt.Errorf("%w: was it made for %s?", err, name)
	}
	out := Content{Signer: signature.Signer}
	if out.Certificates, err = parseLists(lists); err != nil {
		return Content{}, err
	}
	return out, nil
}

// parseLists reads signature lists. Hashes and other kinds of entries are
// passed over: what is wanted is that there is a certificate.
func parseLists(b []byte) ([]*x509.Certificate, error) {
	le := binary.LittleEndian
	var out []*x509.Certificate
	for len(b) > 0 {
		if len(b) < listHeaderLen {
			return nil, errors.New("signature list is cut")
		}
		size, header, entry := int64(le.Uint32(b[16:])), int64(le.Uint32(b[20:])), int64(le.Uint32(b[24:]))
		body := size - listHeaderLen - header
		if size > int64(len(b)) || entry <= 16 || body <= 0 || body%entry != 0 {
			return nil, fmt.Errorf("signature list of %d bytes with entries of %d", size, entry)
		}
		if bytes.Equal(b[:16], mixed(certX509())) {
			for at := listHeaderLen + header; at < size; at += entry {
				c, err := x509.ParseCertificate(b[at+16 : at+entry])
				if err != nil {
					return nil, fmt.Errorf("signature list: %w", err)
				}
				out = append(out, c)
			}
		}
		b = b[size:]
	}
	if len(out) == 0 {
		return nil, errors.New("the signature lists hold no certificate")
	}
	return out, nil
}
