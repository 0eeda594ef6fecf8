package trust

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func FuzzParsePin(f *testing.F) {
	f.Add([]byte(strings.Repeat("0a", 32) + "\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		if hash, err := parsePin("pin", data); err == nil && (len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "") {
			t.Fatalf("took %q", hash)
		}
	})
}

func FuzzBaseURL(f *testing.F) {
	for _, s := range []string{"https://a:9345", "https://[::1]:9345/", "https://a@b", "x", "https://a?b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		base, err := baseURL(text)
		if err != nil {
			return
		}
		if again, err := baseURL(base); err != nil || again != base {
			t.Fatalf("%q gives %q, which gives %q, %v", text, base, again, err)
		}
	})
}

// FuzzAnswer: what a stranger sends must come out on one line and short.
func FuzzAnswer(f *testing.F) {
	f.Add("404 Not Found", "text/html", "<html>")
	f.Add("200", "\x1b[2J", `{"kind":"Status","message":"\u001b[2J\nx"}`)
	f.Fuzz(func(t *testing.T, code, kind, body string) {
		answer := &http.Response{Status: short(code), Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(""))}
		for _, err := range []error{what(answer, []byte(body)), status([]byte(body))} {
			if err != nil && (strings.ContainsAny(err.Error(), "\n\r\x1b\x00") || len(err.Error()) > 4*(3*quoteBytes+200)) {
				t.Fatalf("told as %q", err)
			}
		}
	})
}
