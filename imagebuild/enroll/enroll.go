// Package enroll makes what systemd-boot enrols a machine's Secure Boot keys
// from: the variables PK, KEK and db as authenticated writes, one .auth file
// each.
//
// A folder holds ready .auth files, or certificates (NAME.crt, PEM) and the
// keys that sign the writes (PK.key, KEK.key); Generate makes such a folder
// to try things with. The bytes depend on the folder and the given time
// alone. Private keys never go to an image. The builder puts the files on the
// ESP; firmware takes them once, while it is in setup mode.
//
// Formats: UEFI specification 2.10, 8.2.2 (EFI_VARIABLE_AUTHENTICATION_2) and
// 32.4.1 (EFI_SIGNATURE_LIST); names of the files: systemd-boot(7).
package enroll

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unicode/utf16"

	"keelson/imagebuild/guid"
	"keelson/imagebuild/pkcs7"
)

// Variable is one variable to be written.
type Variable struct {
	Name string // PK, KEK or db
	Auth []byte // content of the .auth file
}

// variable says who signs a write, and where a variable lives.
type variable struct {
	name, signer string
	vendor       guid.GUID
}

// global is EFI_GLOBAL_VARIABLE, database EFI_IMAGE_SECURITY_DATABASE_GUID.
func global() guid.GUID {
	return guid.GUID{0x8b, 0xe4, 0xdf, 0x61, 0x93, 0xca, 0x11, 0xd2, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
}

func database() guid.GUID {
	return guid.GUID{0xd7, 0x19, 0xb2, 0xcb, 0x3d, 0x3a, 0x45, 0x96, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
}

// certX509 is EFI_CERT_X509_GUID, certPKCS7 EFI_CERT_TYPE_PKCS7_GUID.
func certX509() guid.GUID {
	return guid.GUID{0xa5, 0xc0, 0x59, 0xa1, 0x94, 0xe4, 0x4a, 0xa7, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
}

func certPKCS7() guid.GUID {
	return guid.GUID{0x4a, 0xaf, 0xd2, 0x9d, 0x68, 0xdf, 0x49, 0xee, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7}
}

func variables() []variable {
	return []variable{{"PK", "PK", global()}, {"KEK", "PK", global()}, {"db", "KEK", database()}}
}

func find(name string) (variable, error) {
	for _, v := range variables() {
		if v.name == name {
			return v, nil
		}
	}
	return variable{}, fmt.Errorf("variable %q: want PK, KEK or db", name)
}

const (
	// attributes of such a variable: non-volatile, boot and run time, and
	// written only with a time that is newer than the last one.
	attributes    = 0x27
	timeLen       = 16
	certHeaderLen = 4 + 2 + 2 + 16 // WIN_CERTIFICATE_UEFI_GUID
	certRevision  = 0x0200
	certGUID      = 0x0ef1 // WIN_CERT_TYPE_EFI_GUID
	listHeaderLen = 16 + 4 + 4 + 4
)

// Load reads a folder. Where NAME.auth is there, it is checked and taken as
// it is; else the write is made of NAME.crt at the given time.
func Load(dir string, at time.Time) ([]Variable, error) {
	out := make([]Variable, 0, 3)
	for _, v := range variables() {
		one, err := load(dir, v, at)
		if err != nil {
			return nil, fmt.Errorf("enrolment keys %s: %w", dir, err)
		}
		out = append(out, one)
	}
	return out, nil
}

func load(dir string, v variable, at time.Time) (Variable, error) {
	auth, err := os.ReadFile(filepath.Join(dir, v.name+".auth"))
	if err == nil {
		if _, err := Parse(v.name, auth); err != nil {
			return Variable{}, fmt.Errorf("%s.auth: %w", v.name, err)
		}
		return Variable{v.name, auth}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Variable{}, err
	}
	text, err := os.ReadFile(filepath.Join(dir, v.name+".crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return Variable{}, fmt.Errorf("neither %s.auth nor %s.crt is there", v.name, v.name)
	}
	if err != nil {
		return Variable{}, err
	}
	certificates, err := pkcs7.ParseCertificates(text)
	if err != nil {
		return Variable{}, fmt.Errorf("%s.crt: %w", v.name, err)
	}
	signer, err := pkcs7.LoadPair(filepath.Join(dir, v.signer+".key"), filepath.Join(dir, v.signer+".crt"), time.Now())
	if err != nil {
		return Variable{}, fmt.Errorf("%s must be signed by %s: %w", v.name, v.signer, err)
	}
	auth, err = Render(v.name, certificates, signer, at)
	return Variable{v.name, auth}, err
}

// Render makes the write of a variable that holds certificates.
func Render(name string, certificates []*x509.Certificate, signer *pkcs7.Pair, at time.Time) ([]byte, error) {
	v, err := find(name)
	if err != nil {
		return nil, err
	}
	owner := guid.Derive(signer.Certificate.Raw, "Secure Boot owner")
	var lists []byte
	for _, c := range certificates {
		lists = append(lists, signatureList(owner, c)...)
	}
	stamp := efiTime(at)
	signature, err := pkcs7.SignDetached(signer, signed(v, stamp, lists))
	if err != nil {
		return nil, fmt.Errorf("variable %s: %w", name, err)
	}
	le := binary.LittleEndian
	out := bytes.Clone(stamp)
	out = le.AppendUint32(out, uint32(certHeaderLen+len(signature)))
	out = le.AppendUint16(out, certRevision)
	out = le.AppendUint16(out, certGUID)
	out = append(out, mixed(certPKCS7())...)
	out = append(out, signature...)
	return append(out, lists...), nil
}

// signed is what the signature of a write is over.
func signed(v variable, stamp, lists []byte) []byte {
	le := binary.LittleEndian
	var out []byte
	for _, unit := range utf16.Encode([]rune(v.name)) {
		out = le.AppendUint16(out, unit)
	}
	out = append(out, mixed(v.vendor)...)
	out = le.AppendUint32(out, attributes)
	out = append(out, stamp...)
	return append(out, lists...)
}

// signatureList is an EFI_SIGNATURE_LIST of one certificate: lists hold
// entries of one size.
func signatureList(owner guid.GUID, c *x509.Certificate) []byte {
	le := binary.LittleEndian
	out := mixed(certX509())
	out = le.AppendUint32(out, uint32(listHeaderLen+16+len(c.Raw)))
	out = le.AppendUint32(out, 0)
	out = le.AppendUint32(out, uint32(16+len(c.Raw)))
	out = append(out, mixed(owner)...)
	return append(out, c.Raw...)
}

// efiTime is EFI_TIME in UTC; everything below seconds must be zero here.
func efiTime(at time.Time) []byte {
	at = at.UTC()
	out := binary.LittleEndian.AppendUint16(nil, uint16(at.Year()))
	out = append(out, byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()))
	return append(out, make([]byte, timeLen-len(out))...)
}

// mixed is the byte order of EFI_GUID: the first three parts little-endian.
func mixed(g guid.GUID) []byte {
	return []byte{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}
