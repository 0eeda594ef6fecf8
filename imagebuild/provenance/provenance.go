// Package provenance says in a form that machines read what artefacts were
// made from, by what and how: an in-toto statement with SLSA's provenance,
// and, with a key, the signed envelope around it.
//
// Nothing in it is a time or a name of the machine that builds, so that two
// builds of the same inputs say the same. The builder collects artefacts and
// inputs; whoever trusts the key can check the envelope with any DSSE tool.
//
// Formats: in-toto attestation framework, spec v1 (statement.md,
// digest_set.md); slsa.dev/spec/v1.0/provenance; DSSE protocol.md.
package provenance

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"keelson/imagebuild/pkcs7"
)

// Types of the formats, and of this builder.
const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	payloadType   = "application/vnd.in-toto+json"
	buildType     = "https://keelson.internal/imagebuild/image/v1"
	builderID     = "https://keelson.internal/imagebuild"
)

// Resource is something with a hash: an artefact, or what one is made from.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Build is what is to be said.
type Build struct {
	Subjects   []Resource
	Parameters map[string]string // what whoever builds may choose
	Inputs     []Resource
	Toolchain  string // Go's version
}

type statement struct {
	Type          string     `json:"_type"`
	Subjects      []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     predicate  `json:"predicate"`
}

type predicate struct {
	Definition struct {
		Type       string            `json:"buildType"`
		Parameters map[string]string `json:"externalParameters"`
		Inputs     []Resource        `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	Run struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version,omitempty"`
		} `json:"builder"`
	} `json:"runDetails"`
}

// Render makes the statement. Every subject must have a SHA-256.
func Render(b Build) ([]byte, error) {
	s := statement{Type: statementType, Subjects: sorted(b.Subjects), PredicateType: predicateType}
	for _, r := range s.Subjects {
		if len(r.Digest["sha256"]) != 2*sha256.Size {
			return nil, fmt.Errorf("provenance: %s has no SHA-256", r.Name)
		}
	}
	s.Predicate.Definition.Type = buildType
	s.Predicate.Definition.Parameters = b.Parameters
	s.Predicate.Definition.Inputs = sorted(b.Inputs)
	s.Predicate.Run.Builder.ID = builderID
	if b.Toolchain != "" {
		s.Predicate.Run.Builder.Version = map[string]string{"go": b.Toolchain}
	}
	return render(s)
}

func sorted(list []Resource) []Resource {
	out := append([]Resource{}, list...)
	sort.SliceStable(out, func(i, j int) bool { return out[i].Name+"\x00"+out[i].URI < out[j].Name+"\x00"+out[j].URI })
	return out
}

func render(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	return b.Bytes(), nil
}

type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// Sign puts a statement into an envelope signed with RSA, PKCS #1 v1.5 and
// SHA-256. The key's ID is the SHA-256 of its certificate.
func Sign(statement []byte, p *pkcs7.Pair) ([]byte, error) {
	digest := sha256.Sum256(encode(payloadType, statement))
	sig, err := rsa.SignPKCS1v15(nil, p.Key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, fmt.Errorf("provenance: sign: %w", err)
	}
	return render(envelope{payloadType, base64.StdEncoding.EncodeToString(statement), []signature{{p.ID(), base64.StdEncoding.EncodeToString(sig)}}})
}

// encode is DSSE's pre-authentication encoding.
func encode(kind string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(kind), kind, len(payload)), payload...)
}

// Open checks an envelope against a public key and returns the statement.
func Open(text []byte, key *rsa.PublicKey) ([]byte, error) {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("provenance: read envelope: %w", err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil || e.PayloadType != payloadType {
		return nil, fmt.Errorf("provenance: envelope with a payload of type %q: want %s", e.PayloadType, payloadType)
	}
	digest := sha256.Sum256(encode(e.PayloadType, payload))
	for _, s := range e.Signatures {
		sig, err := base64.StdEncoding.DecodeString(s.Sig)
		if err == nil && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sig) == nil {
			return payload, nil
		}
	}
	return nil, fmt.Errorf("provenance: none of %d signatures is by that key", len(e.Signatures))
}

// ModuleHashes reads go.sum: "module@version" to its hash in hex, as the
// digest "dirHash" has it. Lines of go.mod files alone are passed over.
func ModuleHashes(gosum []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(gosum)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || strings.HasSuffix(fields[1], "/go.mod") {
			continue
		}
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[2], "h1:")); err == nil && len(sum) == sha256.Size {
			out[fields[0]+"@"+fields[1]] = hex.EncodeToString(sum)
		}
	}
	return out
}
