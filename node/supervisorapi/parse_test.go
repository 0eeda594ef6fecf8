package supervisorapi

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"keelson/node/token"
)

// TestParseToken: the empty token asks for one to be made, and an empty request for nothing.
func TestParseToken(t *testing.T) {
	for _, c := range []struct {
		body string
		want token.Secret
		bad  bool
	}{
		{`{"newToken":""}`, "", false}, {`{"newToken":"x"}`, "x", false}, {`{"newToken":"x","more":1}`, "x", false}, {`{"newToken":"a\"b"}`, `a"b`, false},
		{"", "", true}, {"  \n", "", true}, {"{}", "", true}, {`{"newToken":null}`, "", true}, {"null", "", true}, {"[]", "", true},
		{`"hush"`, "", true}, {`{"newToken":7}`, "", true}, {`{"newToken":"hush`, "", true}, {`{"newToken":"hushhu.0123456789abcdef"}`, "", true},
	} {
		got, err := parseToken([]byte(c.body))
		refusal := (*Refusal)(nil)
		if got != c.want || (err != nil) != c.bad || c.bad && (!errors.As(err, &refusal) || refusal.Code != 400 || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: got %q, %v", c.body, got.Reveal(), err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte(`{"newToken":"x"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		next, err := parseToken(body)
		if err != nil && next != "" {
			t.Errorf("got %q and %v", next.Reveal(), err)
		}
		if err != nil || next == "" {
			return
		}
		if _, err := token.ServerPassword(next); err != nil {
			t.Errorf("%q is no server token: %v", next.Reveal(), err)
		}
	})
}

func TestParseAddresses(t *testing.T) {
	address := netip.MustParseAddr
	for _, c := range []struct {
		list string
		want []netip.Addr
		bad  string
	}{
		{"", nil, ""},
		{"10.0.0.9", []netip.Addr{address("10.0.0.9")}, ""},
		{"10.0.0.9, fd00::9", []netip.Addr{address("10.0.0.9"), address("fd00::9")}, ""},
		{"::ffff:10.0.0.9", []netip.Addr{address("10.0.0.9")}, ""},
		{"10.0.0.9,", nil, "list of addresses"},
		{",", nil, "list of addresses"},
		{"fe80::1%eth0", nil, "list of addresses"},
		{"agent-1", nil, "list of addresses"},
		{strings.Repeat("10.0.0.9,", maxAddresses) + "10.0.0.9", nil, "more than"},
	} {
		got, err := parseAddresses(c.list)
		if !slices.Equal(got, c.want) || (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%q: got %v, %v", c.list, got, err)
		}
	}
}

func FuzzParseAddresses(f *testing.F) {
	f.Add("10.0.0.9, fd00::9")
	f.Add("::ffff:10.0.0.9,fe80::1%eth0")
	f.Fuzz(func(t *testing.T, list string) {
		all, err := parseAddresses(list)
		if len(all) > maxAddresses || err != nil && all != nil {
			t.Errorf("got %d addresses, %v", len(all), err)
		}
		for _, a := range all {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
				t.Errorf("got %v", a)
			}
		}
	})
}
