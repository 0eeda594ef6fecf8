package token

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCAHashVectors are bundles made by openssl, and hashes that `sha256sum` gives of the file, or of
// `openssl x509 -outform der` of the root.
func TestCAHashVectors(t *testing.T) {
	const root = "0c2919bc6e88597a5407463152d84971f1ae4a56cea660afa1aff4aafc8edd48"
	for _, c := range []struct {
		file, want string
		vouched    int // certificates
	}{
		{"single.pem", "a51f52bea1986787eab4b1c874f50b778cecb503a722c17f08c9eefa7e37a3dd", 1},
		{"chain.pem", root, 3},
		{"chain-renewed.pem", root, 3},
		{"chain-and-foreign.pem", root, 3}, // the fourth is not under the root
		{"root-first.pem", "e5633d287440e84bf04bf70f39a127160f23825435d8018899a1a2fb98b0324d", 2},   // nothing verifies the first
		{"broken-chain.pem", "588c01aee254e904b7c30bc988e70f1ca2707c26be1bd92fb67c2860f6f113e1", 2}, // the one in the middle is absent
	} {
		t.Run(c.file, func(t *testing.T) {
			bundle, err := os.ReadFile(filepath.Join("testdata", c.file))
			if err != nil {
				t.Fatal(err)
			}
			got, vouched, err := Pin(bundle)
			if err != nil || got != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
			if n := bytes.Count(vouched, []byte("BEGIN CERTIFICATE")); n != c.vouched {
				t.Errorf("%d certificates are vouched for, want %d", n, c.vouched)
			}
		})
	}
}

// TestForeignAuthorityInABundle: whoever adds an authority to a true chain keeps the hash, and gains nothing.
func TestForeignAuthorityInABundle(t *testing.T) {
	root, rootKey, rootPEM := issue(t, "root", nil, nil)
	_, _, interPEM := issue(t, "issuer", root, rootKey)
	_, _, evil := issue(t, "evil", nil, nil)
	evilParent, evilKey, evilPEM := issue(t, "evil root", nil, nil)
	_, _, evilInter := issue(t, "evil issuer", evilParent, evilKey)
	honest := bytes.Join([][]byte{interPEM, rootPEM}, nil)
	want, _, err := Pin(honest)
	if err != nil {
		t.Fatal(err)
	}
	for name, bundle := range map[string][]byte{
		"a root after":    bytes.Join([][]byte{interPEM, rootPEM, evil}, nil),
		"a root between":  bytes.Join([][]byte{interPEM, evil, rootPEM}, nil),
		"a chain after":   bytes.Join([][]byte{interPEM, rootPEM, evilInter, evilPEM}, nil),
		"a chain between": bytes.Join([][]byte{interPEM, evilInter, evilPEM, rootPEM}, nil),
	} {
		hash, vouched, err := Pin(bundle)
		if err != nil || hash != want {
			t.Errorf("%s: got %s, %v", name, hash, err)
		}
		if !bytes.Equal(vouched, honest) {
			t.Errorf("%s: more than the true chain is vouched for", name)
		}
	}
	for name, bundle := range map[string][]byte{
		"its root first":  bytes.Join([][]byte{evil, interPEM, rootPEM}, nil),
		"its chain first": bytes.Join([][]byte{evilInter, evilPEM, interPEM, rootPEM}, nil),
	} {
		if hash, _, err := Pin(bundle); err != nil || hash == want {
			t.Errorf("%s: has the hash of the true chain, %v", name, err)
		}
	}
}

func TestBootstrapTokens(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		id, secret := GenerateBootstrap()
		gotID, gotSecret, err := ParseBootstrap(Secret(id + "." + secret.Reveal()))
		if err != nil || gotID != id || gotSecret != secret {
			t.Fatalf("%q.%q: %q, %v", id, secret.Reveal(), gotID, err)
		}
		seen[id] = true
	}
	if len(seen) < 99 {
		t.Errorf("only %d of 100 differ", len(seen))
	}
	bundle, err := os.ReadFile("testdata/chain.pem")
	if err != nil {
		t.Fatal(err)
	}
	full, err := FormatBootstrap(bundle, "abcdef", "0123456789abcdef")
	if err != nil || full.Reveal() != "K100c2919bc6e88597a5407463152d84971f1ae4a56cea660afa1aff4aafc8edd48::abcdef.0123456789abcdef" {
		t.Errorf("got %s, %v", full.Reveal(), err)
	}
	if id, secret, err := ParseBootstrap(full); err != nil || id != "abcdef" || secret != "0123456789abcdef" {
		t.Errorf("parse %s: %v", full.Reveal(), err)
	}
	if _, err := FormatBootstrap(nil, "abcdef", "0123456789abcdef"); err == nil {
		t.Error("without a CA: no error")
	}
	for _, bad := range []string{"", "abc", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdef0", "abcdef.0123456789abcdef\n", "K10::server:x"} {
		if _, _, err := ParseBootstrap(Secret(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func FuzzPin(f *testing.F) {
	for _, name := range []string{"single.pem", "chain.pem", "chain-and-foreign.pem", "broken-chain.pem"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		hash, vouched, err := Pin(data)
		if err != nil {
			return
		}
		if len(hash) != hashLength || len(vouched) == 0 {
			t.Fatalf("hash %q, %d bytes vouched for", hash, len(vouched))
		}
		if again, err := CAHash(vouched); err != nil || again != hash {
			t.Fatalf("what is vouched for has hash %s, %v; the whole has %s", again, err, hash)
		}
	})
}
