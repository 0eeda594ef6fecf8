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
	"io"
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
	l, err := parse(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	return l.digest(bytes.NewReader(image), int64(len(image)))
}

// Sign returns image with a signature behind it.
func Sign(image []byte, p *pkcs7.Pair) ([]byte, error) {
	out := &memory{slices.Clone(image)}
	if err := SignFile(out, int64(len(image)), p); err != nil {
		return nil, err
	}
	return out.b, nil
}

// File is an image that need not be held in memory.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// SignFile puts a signature behind an image of length bytes.
func SignFile(image File, length int64, p *pkcs7.Pair) error {
	l, err := parse(image, length)
	if err != nil {
		return fmt.Errorf("authenticode: %w", err)
	}
	if l.certSize != 0 {
		return errors.New("authenticode: the image is signed already")
	}
	digest, err := l.digest(image, length)
	if err != nil {
		return err
	}
	var content indirect
	content.Data.Type, content.Data.Value = imageData(), asn1.RawValue{FullBytes: emptyImageData()}
	content.Message = digestInfo{pkix.AlgorithmIdentifier{Algorithm: sha256OID(), Parameters: asn1.NullRawValue}, digest}
	der, err := asn1.Marshal(content)
	if err != nil {
		return fmt.Errorf("authenticode: %w", err)
	}
	signature, err := pkcs7.SignAttached(p, indirectData(), der)
	if err != nil {
		return fmt.Errorf("authenticode: %w", err)
	}
	le := binary.LittleEndian
	at := align8(length)
	table := make([]byte, align8(int64(certHeaderLen+len(signature))))
	le.PutUint32(table, uint32(len(table)))
	le.PutUint16(table[4:], certRevision)
	le.PutUint16(table[6:], certPKCS7)
	copy(table[certHeaderLen:], signature)
	entry := le.AppendUint32(le.AppendUint32(nil, uint32(at)), uint32(len(table)))
	for _, part := range []struct {
		b  []byte
		at int64
	}{{make([]byte, at-length), length}, {table, at}, {entry, int64(l.certEntry)}} {
		if _, err := image.WriteAt(part.b, part.at); err != nil {
			return fmt.Errorf("authenticode: %w", err)
		}
	}
	checksum, err := l.sum(io.NewSectionReader(image, 0, at+int64(len(table))))
	if err == nil {
		_, err = image.WriteAt(le.AppendUint32(nil, checksum), int64(l.checksum))
	}
	if err != nil {
		return fmt.Errorf("authenticode: %w", err)
	}
	return nil
}

// memory is a File in memory that grows.
type memory struct{ b []byte }

func (m *memory) ReadAt(b []byte, at int64) (int, error) { return bytes.NewReader(m.b).ReadAt(b, at) }

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if missing := int(at) + len(b) - len(m.b); missing > 0 {
		m.b = append(m.b, make([]byte, missing)...)
	}
	return copy(m.b[at:], b), nil
}

// Verify checks the signature of an image and returns who signed it: the
// caller says whether that one is to be trusted.
func Verify(image []byte) (*x509.Certificate, error) {
	l, err := parse(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	if l.certSize == 0 {
		return nil, ErrUnsigned
	}
	le := binary.LittleEndian
	table := image[l.certAt:]
	length := int64(le.Uint32(table))
	if length < certHeaderLen || length > int64(len(table)) || align8(length) != int64(len(table)) ||
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
	digest, err := l.digest(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(content.Message.Digest, digest) {
		return nil, errors.New("authenticode: the image is not the one that was signed: its hash is another")
	}
	return signature.Signer, nil
}

// Strip returns the image without its signature, as it was before Sign but
// for zeros at the end and the checksum.
func Strip(image []byte) ([]byte, error) {
	l, err := parse(bytes.NewReader(image), int64(len(image)))
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

func align8(n int64) int64 { return (n + 7) &^ 7 }

func (l layout) digest(image io.ReaderAt, length int64) ([]byte, error) {
	h := sha256.New()
	if l.certSize != 0 {
		length = int64(l.certAt)
	}
	for _, part := range [][2]int64{{0, int64(l.checksum)}, {int64(l.checksum) + 4, int64(l.certEntry)}, {int64(l.certEntry) + 8, length}} {
		if _, err := io.Copy(h, io.NewSectionReader(image, part[0], part[1]-part[0])); err != nil {
			return nil, fmt.Errorf("authenticode: %w", err)
		}
	}
	h.Write(make([]byte, align8(length)-length)) // as it will be once signed
	return h.Sum(nil), nil
}
