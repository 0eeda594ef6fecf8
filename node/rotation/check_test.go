package rotation

import (
	"errors"
	"strings"
	"testing"

	"keelson/node/token"
)

func TestCheck(t *testing.T) {
	for _, bad := range []token.Secret{"abcdef.0123456789abcdef", "K10" + "x", "K10::server:x", " x", "x\n", "a\tb", "a\x00b", "\xff", "a\x7f"} {
		if _, err := Check(bad); !errors.Is(err, ErrNewToken) || len(bad) > 4 && strings.Contains(err.Error(), bad.Reveal()) {
			t.Errorf("%q: got %v", bad.Reveal(), err)
		}
	}
	for _, good := range []token.Secret{"x", "a b:c,d\"e", "ключ"} {
		if got, err := Check(good); err != nil || got != good {
			t.Errorf("%q: got %q, %v", good.Reveal(), got.Reveal(), err)
		}
	}
	if got, err := Check(""); err != nil || len(got) != 32 {
		t.Errorf("none: got %d characters, %v", len(got), err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("x")
	f.Add("a b:c,d\"e")
	f.Fuzz(func(t *testing.T, text string) {
		next, err := Check(token.Secret(text))
		if err != nil {
			return
		}
		// What passes must survive the password file, and read back as itself.
		data, err := token.RenderPasswd(token.WithServer(nil, next))
		if err != nil {
			t.Fatal(err)
		}
		users, err := token.ParsePasswd(data)
		if err != nil || token.PasswordsOf(users).Server != next {
			t.Fatalf("%q becomes %q, %v", next.Reveal(), token.PasswordsOf(users).Server.Reveal(), err)
		}
	})
}
