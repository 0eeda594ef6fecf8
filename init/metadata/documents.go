package metadata

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"keelson/init/userdata"
)

// Document makes one of the list that a source gives: none where it is empty.
func Document(source, name string, data []byte) []userdata.Document {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	return []userdata.Document{{Source: source + ": " + name, Data: data}}
}

// Meta writes an instance's id and name the way NoCloud's meta-data has them.
// Go's quoting of texts is within YAML's.
func Meta(source, id, hostname string) []userdata.Document {
	text := ""
	if id != "" {
		text += fmt.Sprintf("instance-id: %q\n", id)
	}
	if hostname != "" {
		text += fmt.Sprintf("local-hostname: %q\n", hostname)
	}
	return Document(source, "meta-data", []byte(text))
}

// Optional takes the absence of a document for an empty one.
func Optional(data []byte, err error) ([]byte, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return data, err
}

// Word returns a one-line answer, bounded and without line breaks.
func Word(data []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(data[:min(len(data), 1024)])), "\n")
	return strings.TrimSpace(s)
}

// Base64 decodes what a cloud keeps of user-data.
func Base64(what, text string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%s is not base64: %w: %w", what, err, ErrFinal)
	}
	return data, nil
}
