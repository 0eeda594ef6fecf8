// Package pkcs7 makes and checks the one kind of PKCS #7 SignedData that UEFI
// firmware takes: SHA-256, RSA with PKCS #1 v1.5 padding, one signer, its
// certificate within.
//
// Signatures have no signing time and no random padding, so that the same
// content, key and certificate give the same bytes. It never looks at dates:
// firmware does not either; LoadPair does, once, for the person who builds.
// Package authenticode signs EFI programs with it, package enroll variables.
//
// Format: RFC 2315; UEFI specification 2.10, 32.2.4 for what firmware wants.
package pkcs7

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

func oid(numbers ...int) asn1.ObjectIdentifier { return numbers }

// Object identifiers of RFC 2315 and PKCS #9.
var (
	oidData          = oid(1, 2, 840, 113549, 1, 7, 1)
	oidSignedData    = oid(1, 2, 840, 113549, 1, 7, 2)
	oidContentType   = oid(1, 2, 840, 113549, 1, 9, 3)
	oidMessageDigest = oid(1, 2, 840, 113549, 1, 9, 4)
	oidSHA256        = oid(2, 16, 840, 1, 101, 3, 4, 2, 1)
	oidRSA           = oid(1, 2, 840, 113549, 1, 1, 1)
	oidSHA256WithRSA = oid(1, 2, 840, 113549, 1, 1, 11)
)

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

type raw struct{ Raw asn1.RawContent }

type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Content          contentInfo
	Certificates     raw          `asn1:"optional,tag:0"`
	CRLs             raw          `asn1:"optional,tag:1"`
	Signers          []signerInfo `asn1:"set"`
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type signerInfo struct {
	Version            int
	Issuer             issuerAndSerial
	DigestAlgorithm    pkix.AlgorithmIdentifier
	Attributes         raw `asn1:"optional,tag:0"`
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Signature          []byte
	Unauthenticated    raw `asn1:"optional,tag:1"`
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value []asn1.RawValue `asn1:"set"`
}

func algorithm(id asn1.ObjectIdentifier) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.NullRawValue}
}

// SignAttached signs content, the DER of one value, and puts it within, with
// authenticated attributes: what Authenticode is. The result is a ContentInfo.
func SignAttached(p *Pair, contentType asn1.ObjectIdentifier, content []byte) ([]byte, error) {
	var value asn1.RawValue
	if rest, err := asn1.Unmarshal(content, &value); err != nil || len(rest) != 0 {
		return nil, errors.New("pkcs7: the content is not one DER value")
	}
	// The digest is over the content without its tag and length (RFC 2315, 9.3).
	digest := sha256.Sum256(value.Bytes)
	attributes, err := marshalAttributes(contentType, digest[:])
	if err != nil {
		return nil, fmt.Errorf("pkcs7: %w", err)
	}
	info := contentInfo{contentType, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: content}}
	signed, err := sign(p, info, attributes, attributes)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: signed}})
}

// SignDetached signs data that is kept elsewhere, without attributes: what an
// authenticated variable is. The result is a bare SignedData, which old
// firmware insists on.
func SignDetached(p *Pair, data []byte) ([]byte, error) {
	return sign(p, contentInfo{Type: oidData}, nil, data)
}

// sign makes a SignedData whose signature is over message.
func sign(p *Pair, info contentInfo, attributes, message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	signature, err := rsa.SignPKCS1v15(nil, p.Key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, fmt.Errorf("pkcs7: sign: %w", err)
	}
	signer := signerInfo{
		Version: 1, Issuer: issuerAndSerial{asn1.RawValue{FullBytes: p.Certificate.RawIssuer}, p.Certificate.SerialNumber},
		DigestAlgorithm: algorithm(oidSHA256), SignatureAlgorithm: algorithm(oidRSA), Signature: signature,
	}
	if attributes != nil {
		// What is signed is a SET; what is stored has the tag [0] instead.
		stored := slices.Clone(attributes)
		stored[0] = 0xa0
		signer.Attributes.Raw = stored
	}
	certificates, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: p.Certificate.Raw})
	if err != nil {
		return nil, fmt.Errorf("pkcs7: %w", err)
	}
	return asn1.Marshal(signedData{
		Version: 1, DigestAlgorithms: []pkix.AlgorithmIdentifier{algorithm(oidSHA256)}, Content: info,
		Certificates: raw{certificates}, Signers: []signerInfo{signer},
	})
}

// marshalAttributes is the SET OF in the order that DER wants.
func marshalAttributes(contentType asn1.ObjectIdentifier, digest []byte) ([]byte, error) {
	var list [][]byte
	for _, a := range []struct {
		id    asn1.ObjectIdentifier
		value any
	}{{oidContentType, contentType}, {oidMessageDigest, digest}} {
		value, err := asn1.Marshal(a.value)
		if err != nil {
			return nil, err
		}
		b, err := asn1.Marshal(attribute{a.id, []asn1.RawValue{{FullBytes: value}}})
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	slices.SortFunc(list, bytes.Compare)
	return asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: bytes.Join(list, nil)})
}

// Signature is what Verify found to be sound.
type Signature struct {
	Signer      *x509.Certificate
	ContentType asn1.ObjectIdentifier
	Content     []byte // DER of the content that is within
}

// Verify checks a SignedData, bare or in a ContentInfo, with zeros behind it
// or not. Where the content is not within, detached is what was signed. It
// says who signed; whether that one is to be trusted is the caller's to say.
func Verify(der, detached []byte) (Signature, error) {
	s, err := verify(der, detached)
	if err != nil {
		return Signature{}, fmt.Errorf("pkcs7: %w", err)
	}
	return s, nil
}

func verify(der, detached []byte) (Signature, error) {
	var outer contentInfo
	if rest, err := asn1.Unmarshal(der, &outer); err == nil && outer.Type.Equal(oidSignedData) {
		if len(bytes.Trim(rest, "\x00")) != 0 {
			return Signature{}, errors.New("there is something behind the signature")
		}
		der = outer.Content.Bytes
	}
	var sd signedData
	rest, err := asn1.Unmarshal(der, &sd)
	if err != nil || len(bytes.Trim(rest, "\x00")) != 0 {
		return Signature{}, errors.New("no SignedData")
	}
	if len(sd.Signers) != 1 {
		return Signature{}, fmt.Errorf("%d signers: want one", len(sd.Signers))
	}
	signer := sd.Signers[0]
	if a := signer.DigestAlgorithm.Algorithm; !a.Equal(oidSHA256) {
		return Signature{}, fmt.Errorf("digest algorithm %v: want SHA-256", a)
	}
	if a := signer.SignatureAlgorithm.Algorithm; !a.Equal(oidRSA) && !a.Equal(oidSHA256WithRSA) {
		return Signature{}, fmt.Errorf("signature algorithm %v: want RSA", a)
	}
	out := Signature{ContentType: sd.Content.Type, Content: sd.Content.Content.Bytes}
	if out.Signer, err = findSigner(sd.Certificates.Raw, signer.Issuer); err != nil {
		return Signature{}, err
	}
	message := detached
	if len(out.Content) > 0 {
		var value asn1.RawValue
		// The tag is not among what is signed (RFC 2315, 9.3).
		if rest, err := asn1.Unmarshal(out.Content, &value); err != nil || len(rest) != 0 || value.FullBytes[0] != 0x30 {
			return Signature{}, errors.New("the content is no DER sequence")
		}
		message = value.Bytes
	}
	if len(signer.Attributes.Raw) > 0 {
		if message, err = checkAttributes(signer.Attributes.Raw, sd.Content.Type, sha256.Sum256(message)); err != nil {
			return Signature{}, err
		}
	}
	key, ok := out.Signer.PublicKey.(*rsa.PublicKey)
	if !ok {
		return Signature{}, fmt.Errorf("the signer's key is a %T: want RSA", out.Signer.PublicKey)
	}
	digest := sha256.Sum256(message)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signer.Signature); err != nil {
		return Signature{}, errors.New("the signature does not fit the signer's certificate")
	}
	return out, nil
}

func findSigner(certificates []byte, want issuerAndSerial) (*x509.Certificate, error) {
	var set asn1.RawValue
	if _, err := asn1.Unmarshal(certificates, &set); err != nil {
		return nil, errors.New("no certificates")
	}
	list, err := x509.ParseCertificates(set.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	for _, c := range list {
		if bytes.Equal(c.RawIssuer, want.Issuer.FullBytes) && c.SerialNumber.Cmp(want.Serial) == 0 {
			return c, nil
		}
	}
	return nil, errors.New("the signer's certificate is not within")
}

// checkAttributes returns the bytes that the signature is over.
func checkAttributes(stored []byte, contentType asn1.ObjectIdentifier, digest [sha256.Size]byte) ([]byte, error) {
	message := slices.Clone(stored)
	message[0] = 0x31 // SET OF
	var list []attribute
	if rest, err := asn1.UnmarshalWithParams(message, &list, "set"); err != nil || len(rest) != 0 {
		return nil, errors.New("attributes cannot be read")
	}
	var gotType asn1.ObjectIdentifier
	var gotDigest []byte
	for _, a := range list {
		if len(a.Value) != 1 {
			return nil, fmt.Errorf("attribute %v has %d values", a.Type, len(a.Value))
		}
		var err error
		switch {
		case a.Type.Equal(oidContentType):
			_, err = asn1.Unmarshal(a.Value[0].FullBytes, &gotType)
		case a.Type.Equal(oidMessageDigest):
			_, err = asn1.Unmarshal(a.Value[0].FullBytes, &gotDigest)
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %v: %w", a.Type, err)
		}
	}
	if !gotType.Equal(contentType) || !bytes.Equal(gotDigest, digest[:]) {
		return nil, errors.New("the signed attributes are not those of this content")
	}
	return message, nil
}
