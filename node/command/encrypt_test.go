package command

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"keelson/node/encryption"
	"keelson/node/reencryption"
)

// encryptStatus is what the supervisor of a test says.
func encryptStatus() reencryption.Status {
	enabled := true
	return reencryption.Status{
		Stage: encryption.Finished, Enable: &enabled, HashMatch: true,
		ActiveKey: "AES-CBC aescbckey-2026", InactiveKeys: []string{"XSalsa20-POLY1305 secretboxkey"},
	}
}

const encryptTable = `Encryption Status: Enabled
Current Rotation Stage: reencrypt_finished
Server Encryption Hashes: All hashes match

Active  Key Type           Name
------  --------           ----
 *      AES-CBC            aescbckey-2026
        XSalsa20-POLY1305  secretboxkey
`

// encrypting is a machine whose supervisor notes what is asked of it.
func encrypting(t *testing.T) (m *tokenMachine, asked *[]string) {
	t.Helper()
	m, asked = newTokenMachine(t), new([]string)
	m.encrypt = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*asked = append(*asked, strings.TrimSpace(r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1-rke2/encrypt/")+" "+string(body)))
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(encryptStatus())
		}
	}
	return m, asked
}

func (m *tokenMachine) encrypts(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, notes bytes.Buffer
	err = secretsEncrypt(t.Context(), append(args, "--server", m.url, "--data-dir", m.dir), &out, &notes)
	if strings.Contains(out.String()+notes.String(), "::server:") || err != nil && strings.Contains(err.Error(), "::server:") {
		t.Error("the token is shown")
	}
	return out.String(), err
}

// TestSecretsEncrypt: each verb and its flags make the request that RKE2's would, and show how the change ended.
func TestSecretsEncrypt(t *testing.T) {
	m, asked := encrypting(t)
	for _, c := range []struct {
		args []string
		want string // of the request; empty: none but for the status
	}{
		{[]string{"status"}, ""},
		{[]string{"status", "-o", "text"}, ""},
		{[]string{"rotate-keys"}, `{"stage":"rotate_keys","force":false,"skip":false}`},
		{[]string{"prepare"}, `{"stage":"prepare","force":false,"skip":false}`},
		{[]string{"prepare", "--force"}, `{"stage":"prepare","force":true,"skip":false}`},
		{[]string{"rotate", "-f"}, `{"stage":"rotate","force":true,"skip":false}`},
		{[]string{"reencrypt"}, `{"stage":"reencrypt_active","force":false,"skip":false}`},
		{[]string{"reencrypt", "--force", "--skip"}, `{"stage":"reencrypt_active","force":true,"skip":true}`},
		{[]string{"enable"}, `{"enable":true,"force":false,"skip":false}`},
		{[]string{"disable"}, `{"enable":false,"force":false,"skip":false}`},
	} {
		*asked = nil
		out, err := m.encrypts(t, c.args...)
		if err != nil || out != encryptTable {
			t.Errorf("%v: got %v and\n%s\nwant\n%s", c.args, err, out, encryptTable)
		}
		want := "GET status"
		if c.want != "" {
			want = "PUT config " + c.want + ", GET status"
		}
		if got := strings.Join(*asked, ", "); got != want {
			t.Errorf("%v: asked %s, want %s", c.args, got, want)
		}
	}
	out, err := m.encrypts(t, "status", "--output", "json")
	var back reencryption.Status
	if err != nil || json.Unmarshal([]byte(out), &back) != nil || back.ActiveKey != "AES-CBC aescbckey-2026" || strings.Count(out, "\n") != 1 {
		t.Errorf("json: got %s, %v", out, err)
	}
}

func TestSecretsEncryptTable(t *testing.T) {
	for _, c := range []struct {
		name string
		s    reencryption.Status
		want string
	}{
		{"nothing", reencryption.Status{}, "Encryption Status: Disabled\nCurrent Rotation Stage: \nServer Encryption Hashes: \n\nActive  Key Type  Name\n------  --------  ----\n"},
		{"in plain, servers differ", reencryption.Status{Stage: encryption.Start, Enable: new(bool), HashError: "cp-3 says nothing", InactiveKeys: []string{"AES-CBC k"}},
			"Encryption Status: Disabled\nCurrent Rotation Stage: start\nServer Encryption Hashes: cp-3 says nothing\n\nActive  Key Type  Name\n------  --------  ----\n        AES-CBC   k\n"},
		{"under way", reencryption.Status{Stage: encryption.Active, HashMatch: true, Keelson: reencryption.Progress{Change: "rotate keys", Running: true, Done: 7}},
			"Encryption Status: Disabled\nCurrent Rotation Stage: reencrypt_active\nServer Encryption Hashes: All hashes match\nLast change: rotate keys, running: true, Secrets written: 7 \n\nActive  Key Type  Name\n------  --------  ----\n"},
		{"failed", reencryption.Status{HashMatch: true, Keelson: reencryption.Progress{Change: "rotate keys", Error: "cut"}},
			"Encryption Status: Disabled\nCurrent Rotation Stage: \nServer Encryption Hashes: All hashes match\nLast change: rotate keys, running: false, Secrets written: 0 cut\n\nActive  Key Type  Name\n------  --------  ----\n"},
	} {
		var out bytes.Buffer
		if err := writeStatus(&out, c.s, "text"); err != nil || out.String() != c.want {
			t.Errorf("%s: got %v and\n%s\nwant\n%s", c.name, err, out.String(), c.want)
		}
	}
}

func TestSecretsEncryptMistakes(t *testing.T) {
	m, asked := encrypting(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"dance"}, `unknown verb "dance"`},
		{[]string{"status", "-o", "xml"}, `output "xml" is neither text nor json`},
		{[]string{"status", "x"}, `"x" is one too many`},
		{[]string{"status", "--force"}, "-force"},
		{[]string{"rotate-keys", "--skip"}, "-skip"},
		{[]string{"prepare", "--token-file", "/no/such/file"}, "where this is no server, give one by --token-file"},
	} {
		if out, err := m.encrypts(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%v: got %q, %v, want %q", c.args, out, err, c.want)
		}
	}
	var out bytes.Buffer
	if err := secretsEncrypt(t.Context(), nil, &out, &out); err == nil || !strings.Contains(err.Error(), "usage: node secrets-encrypt") {
		t.Errorf("no verb: got %v", err)
	}
	if len(*asked) != 0 {
		t.Errorf("a mistake reached the server: %q", *asked)
	}
	m.encrypt = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"message":"not at this stage"}`)
	}
	for _, verb := range []string{"status", "rotate"} {
		if out, err := m.encrypts(t, verb); err == nil || !strings.Contains(err.Error(), "secrets-encrypt "+verb+": ") || !strings.Contains(err.Error(), "not at this stage") || out != "" {
			t.Errorf("%s, refused: got %q, %v", verb, out, err)
		}
	}
}
