package userdata

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"
)

// Bounds of one document: bytes after decompression, parts, and boxes in boxes.
const (
	maxUnpacked = 8 << 20
	maxParts    = 64
	maxDepth    = 4
)

// part is one piece of a document in a format of its own.
type part struct {
	source string
	data   []byte
}

// unpacker opens gzip and MIME until plain cloud-config parts are left.
type unpacker struct {
	parts   []part
	skipped []Problem // well-formed, but nothing a node can use
	broken  []Problem
	seen    int
	size    int // bytes of parts
}

func (u *unpacker) fail(source, format string, args ...any) {
	u.broken = append(u.broken, Problem{Source: source, Text: fmt.Sprintf(format, args...), Fatal: true})
}

// open takes one document or part; contentType is what its MIME header says.
func (u *unpacker) open(source, contentType string, data []byte, depth int) {
	if u.seen++; u.seen > maxParts || depth > maxDepth {
		u.fail(source, "holds more than %d parts, or boxes in boxes; split it", maxParts)
		return
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) { // gzip, RFC 1952 2.3.1
		plain, err := gunzip(data)
		if err != nil {
			u.fail(source, "gzip: %v; compress it anew", err)
			return
		}
		u.open(source, contentType, plain, depth+1)
		return
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return
	}
	if contentType == "text/cloud-config" {
		u.take(source, data)
		return
	}
	first, _, _ := strings.Cut(string(data[:min(len(data), 256)]), "\n")
	first = strings.TrimRight(first, " \t\r")
	lower := strings.ToLower(first)
	switch {
	case first == "#cloud-config":
		u.take(source, data)
	case strings.HasPrefix(lower, "content-type:"), strings.HasPrefix(lower, "mime-version:"),
		strings.HasPrefix(contentType, "multipart/"):
		u.mime(source, data, depth)
	default:
		u.skipped = append(u.skipped, Problem{Source: source, Line: 1, Text: refusal(first, contentType)})
	}
}

// take keeps a part for the loader.
func (u *unpacker) take(source string, data []byte) {
	if u.size += len(data); u.size > maxUnpacked {
		u.fail(source, "the parts are larger than %d MiB in all; make them smaller", maxUnpacked>>20)
		return
	}
	u.parts = append(u.parts, part{source, data})
}

// refusal says why a format is of no use here (cloud-init's list:
// doc/rtd/explanation/format).
func refusal(first, contentType string) string {
	has := func(prefix, kind string) bool {
		return strings.HasPrefix(first, prefix) || contentType == kind
	}
	switch {
	case has("#!", "text/x-shellscript"):
		return "is a script; a node has no shell to run it. Give a #cloud-config document instead"
	case has("#include", "text/x-include-url"), has("#include-once", "text/x-include-once-url"):
		return "is a list of addresses to include, which are not fetched. Put the #cloud-config itself here"
	case has("## template:", "text/jinja2"):
		return "is a jinja template, which is not rendered here. Give the #cloud-config it would become"
	case has("#cloud-boothook", "text/cloud-boothook"):
		return "is a boothook, a script; a node has no shell to run it. Give a #cloud-config document instead"
	case has("#cloud-config-archive", "text/cloud-config-archive"):
		return "is a cloud-config archive, which is not understood. Use a MIME multipart document"
	case has("#cloud-config-jsonp", "text/cloud-config-jsonp"):
		return "is a JSON patch, which is not understood. Give a #cloud-config document"
	case has("#part-handler", "text/part-handler"), has("#upstart-job", "text/upstart-job"):
		return "is code for cloud-init, which a node does not run. Give a #cloud-config document"
	case strings.HasPrefix(strings.ToLower(first), "#cloud-config"), strings.HasPrefix(first, "# cloud-config"):
		return "begins with nearly the right words; the first line must be exactly #cloud-config"
	case strings.HasPrefix(contentType, "text/") && contentType != "text/plain":
		return fmt.Sprintf("has the type %.40q, which is not understood. Use text/cloud-config", contentType)
	}
	return "is in no format known here; the first line must be exactly #cloud-config"
}

func (u *unpacker) mime(source string, data []byte, depth int) {
	in := bufio.NewReader(bytes.NewReader(data))
	header, err := textproto.NewReader(in).ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		u.fail(source, "MIME header: %v; write it anew, for instance by cloud-init devel make-mime", err)
		return
	}
	kind, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		u.fail(source, "MIME header Content-Type: %v", err)
		return
	}
	if !strings.HasPrefix(kind, "multipart/") {
		body, err := decodeTransfer(header, in)
		if err != nil {
			u.fail(source, "MIME body: %v", err)
			return
		}
		u.open(source, kind, body, depth+1)
		return
	}
	parts := multipart.NewReader(in, params["boundary"])
	for i := 1; ; i++ {
		p, err := parts.NextPart()
		if err == io.EOF { // itself: wrapped, it is an end without the last boundary
			return
		}
		if err != nil {
			u.fail(source, "MIME part %d: %v; the document is cut short or its boundary is wrong", i, err)
			return
		}
		name := fmt.Sprintf("%s: part %d", source, i)
		if f := p.FileName(); f != "" {
			name += fmt.Sprintf(" (%.60q)", f)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			kind = "text/plain" // RFC 2045 5.2
		}
		body, err := decodeTransfer(p.Header, p)
		if err != nil {
			u.fail(name, "MIME body: %v; the document is cut short or its boundary is wrong", err)
			return
		}
		if strings.HasPrefix(kind, "multipart/") {
			body = append([]byte("Content-Type: "+p.Header.Get("Content-Type")+"\r\n\r\n"), body...)
		}
		if u.open(name, kind, body, depth+1); len(u.broken) > 0 {
			return // one mistake is told once, not for every part that follows
		}
	}
}

// decodeTransfer undoes base64; multipart itself undoes quoted-printable.
func decodeTransfer(header textproto.MIMEHeader, r io.Reader) ([]byte, error) {
	if strings.EqualFold(header.Get("Content-Transfer-Encoding"), "base64") {
		r = base64.NewDecoder(base64.StdEncoding, r)
	}
	return readBounded(r)
}

func gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return readBounded(z)
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err == nil && len(data) > maxUnpacked {
		err = fmt.Errorf("larger than %d MiB", maxUnpacked>>20)
	}
	return data, err
}
