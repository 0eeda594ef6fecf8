package encryption

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func fresh(t *testing.T, provider string) Settings {
	t.Helper()
	config, err := Config(provider)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(config, first(config))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(s Settings) string {
	var all []string
	for _, k := range s.Keys {
		all = append(all, k.Name)
	}
	if s.Plain {
		all = append([]string{"plain"}, all...)
	}
	return string(s.Stage) + ": " + strings.Join(all, " ")
}

func TestTransitions(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	steps := map[string]func(Settings) (Settings, error){
		"prepare": func(s Settings) (Settings, error) { return s.Prepared(now, false) },
		"force":   func(s Settings) (Settings, error) { return s.Prepared(now.Add(time.Second), true) },
		"rotate":  func(s Settings) (Settings, error) { return s.Rotated(false) },
		"drop":    Settings.Dropped,
		"disable": func(s Settings) (Settings, error) { return s.Enabled(false) },
		"enable":  func(s Settings) (Settings, error) { return s.Enabled(true) },
	}
	const next = "aescbckey-2026-05-04T03:02:01Z"
	for _, c := range []struct{ steps, want string }{
		{"prepare", "prepare: aescbckey " + next},
		{"prepare rotate", "rotate: " + next + " aescbckey"},
		{"prepare rotate drop", "reencrypt_finished: " + next},
		{"prepare drop", "reencrypt_finished: aescbckey"}, // given up
		{"prepare force rotate", "rotate: aescbckey-2026-05-04T03:02:02Z aescbckey " + next},
		{"disable", "start: plain aescbckey"},
		{"disable enable", "start: aescbckey"},
		{"rotate", ""},
		{"prepare prepare", ""},
		{"prepare rotate rotate", ""},
		{"prepare disable", ""},
		{"disable prepare", ""},
		{"disable rotate", ""},
		{"disable drop", ""},
	} {
		s, err := fresh(t, "aescbc"), error(nil)
		for _, step := range strings.Fields(c.steps) {
			if s, err = steps[step](s); err != nil {
				break
			}
			again, err := Load(s.Data, []byte(s.Mark()+"\n"))
			if err != nil || again.Mark() != s.Mark() || names(again) != names(s) {
				t.Errorf("%s: after %s the files are read as %s, %v", c.steps, step, names(again), err)
			}
			if shown := fmt.Sprintf("%v %+v %#v", s, s.Keys, s.Keys[0]); strings.Contains(shown, s.Keys[0].Secret) {
				t.Errorf("a key is shown: %s", shown)
			}
		}
		if c.want == "" {
			if !errors.Is(err, ErrStage) {
				t.Errorf("%s: got %v, want a refusal", c.steps, err)
			}
		} else if err != nil || names(s) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.steps, names(s), err, c.want)
		}
	}
	if s, err := fresh(t, "secretbox").Prepared(now, false); err != nil || s.Keys[1].Prefix() != "k8s:enc:secretbox:v1:secretboxkey-2026-05-04T03:02:01Z:" {
		t.Errorf("secretbox: got %v, %v", s.Keys, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(fresh(t, "aescbc").Data)
	for _, c := range []struct{ name, config, state string }{
		{"cut", good[:len(good)-1], ""},
		{"more", good + "{}", ""},
		{"other resources", strings.Replace(good, `"secrets"`, `"configmaps"`, 1), ""},
		{"other provider", strings.Replace(good, `"aescbc":`, `"aesgcm":`, 1), ""},
		{"short key", strings.Replace(good, `"secret":"`, `"secret":"AAAA`, 1), ""},
		{"no name", strings.Replace(good, "aescbckey", "", 1), ""},
		{"identity in the middle", strings.Replace(good, `{"identity":{}}`, `{"identity":{}},{"identity":{}}`, 1), ""},
		{"state without hash", good, "start"},
		{"unknown stage", good, "never-" + fresh(t, "aescbc").Hash()},
	} {
		state := c.state
		if state == "" {
			state = string(first([]byte(c.config)))
		}
		if _, err := Load([]byte(c.config), []byte(state)); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}

func FuzzLoad(f *testing.F) {
	config, _ := Config("aescbc")
	f.Add(config, first(config))
	f.Add([]byte(`{"kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],"providers":[{}]}]}`), []byte("start-"))
	f.Fuzz(func(t *testing.T, config, state []byte) {
		s, err := Load(config, state)
		if err != nil {
			return
		}
		data, err := s.Render()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load(data, state)
		if err != nil || names(again) != names(s) || again.Prefix() != s.Prefix() {
			t.Fatalf("got %s, %v; want %s", names(again), err, names(s))
		}
	})
}
