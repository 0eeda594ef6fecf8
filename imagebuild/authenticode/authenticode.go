// Package authenticode signs EFI programs for Secure Boot, and checks such
// signatures.
//
// What is signed is the hash of a PE32+ image without its checksum and
// without the place of the signature itself; the signature lies behind the
// image. The same image, key and certificate give the same bytes. It never
// changes what an image does, and refuses images with bytes that no signature
// would cover. Images come from packages uki and, for boot loaders, Debian.
//
// Format: Microsoft, "Windows Authenticode Portable Executable Signature
// Format"; PE/COFF, "The Attribute Certificate Table"; for how firmware reads
// it edk2 SecurityPkg, DxeImageVerificationLib (HashPeImage).
package authenticode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"keelson/imagebuild/pkcs7"
)

// ErrUnsigned is what Verify says of an image without a signature.
var ErrUnsigned = errors.New("authenticode: the image is not signed")

func spc(last int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, last}
}

// SPC_INDIRECT_DATA_OBJID and SPC_PE_IMAGE_DATA_OBJID.
func indirectData() asn1.ObjectIdentifier { return spc(4) }
func imageData() asn1.ObjectIdentifier    { return spc(15) }

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

type indirect struct {
	Data struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	Message digestInfo
}

// emptyImageData is SpcPeImageData with no flags and a file that is an empty
// string: what tools of today write, as nobody reads it.
func emptyImageData() []byte {
	return []byte{0x30, 0x09, 0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00}
}

const (
	certHeaderLen = 8      // WIN_CERTIFICATE: length, revision, type
	certRevision  = 0x0200 // WIN_CERT_REVISION_2_0
	certPKCS7     = 0x0002 // WIN_CERT_TYPE_PKCS_SIGNED_DATA
)

// Digest is the SHA-256 of an image as a signature has it. Signing does not
// change it.
func Digest(image []byte) ([]byte, error) {
	l, err := parse(image)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	return l.digest(image), nil
}

// Sign returns image with a signature behind it.
func Sign(image []byte, p *pkcs7.Pair) ([]byte, error) {
	l, err := parse(image)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	if l.certSize != 0 {
		return nil, errors.New("authenticode: the image is signed already")
	}
	var content indirect
	content.Data.Type, content.Data.Value = imageData(), asn1.RawValue{FullBytes: emptyImageData()}
	content.Message = digestInfo{pkix.AlgorithmIdentifier{Algorithm: sha256OID(), Parameters: asn1.NullRawValue}, l.digest(image)}
	der, err := asn1.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	signature, err := pkcs7.SignAttached(p, indirectData(), der)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	le := binary.LittleEndian
	at := align8(len(image))
	size := align8(certHeaderLen + len(signature))
	out := make([]byte, at+size)
	copy(out, image)
	le.PutUint32(out[l.certEntry:], uint32(at))
	le.PutUint32(out[l.certEntry+4:], uint32(size))
	le.PutUint32(out[at:], uint32(size))
	le.PutUint16(out[at+4:], certRevision)
	le.PutUint16(out[at+6:], certPKCS7)
	copy(out[at+certHeaderLen:], signature)
	le.PutUint32(out[l.checksum:], l.sum(out))
	return out, nil
}

// Verify checks the signature of an image and returns who signed it: the
// caller says whether that one is to be trusted.
func Verify(image []byte) (*x509.Certificate, error) {
	l, err := parse(image)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	if l.certSize == 0 {
		return nil, ErrUnsigned
	}
	le := binary.LittleEndian
	table := image[l.certAt:]
	length := int64(le.Uint32(table))
	if length < certHeaderLen || length > int64(len(table)) || align8(int(length)) != len(table) ||
		le.Uint16(table[4:]) != certRevision || le.Uint16(table[6:]) != certPKCS7 {
		return nil, errors.New("authenticode: the signature's header is not that of one PKCS #7 signature")
	}
	signature, err := pkcs7.Verify(table[certHeaderLen:length], nil)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	var content indirect
	if rest, err := asn1.Unmarshal(signature.Content, &content); err != nil || len(rest) != 0 || !signature.ContentType.Equal(indirectData()) {
		return nil, errors.New("authenticode: what is signed is not the hash of a program")
	}
	if !content.Message.Algorithm.Algorithm.Equal(sha256OID()) || !content.Data.Type.Equal(imageData()) {
		return nil, errors.New("authenticode: what is signed is not the SHA-256 of a PE image")
	}
	if !bytes.Equal(content.Message.Digest, l.digest(image)) {
		return nil, errors.New("authenticode: the image is not the one that was signed: its hash is another")
	}
	return signature.Signer, nil
}

// Strip returns the image without its signature, as it was before Sign but
// for zeros at the end and the checksum.
func Strip(image []byte) ([]byte, error) {
	l, err := parse(image)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	if l.certSize == 0 {
		return nil, ErrUnsigned
	}
	out := slices.Clone(image[:l.certAt])
	clear(out[l.certEntry : l.certEntry+8])
	clear(out[l.checksum : l.checksum+4])
	return out, nil
}

func sha256OID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1} }

func align8(n int) int { return (n + 7) &^ 7 }

func (l layout) digest(image []byte) []byte {
	h := sha256.New()
	h.Write(image[:l.checksum])
	h.Write(image[l.checksum+4 : l.certEntry])
	end := len(image)
	if l.certSize != 0 {
		end = l.certAt
	}
	h.Write(image[l.certEntry+8 : end])
	h.Write(make([]byte, align8(end)-end)) // as it will be once signed
	return h.Sum(nil)
}
