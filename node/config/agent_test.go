package config

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckAgent(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		keys   string
	}{
		{"all there", func(*Config) {}, ""},
		{"no server", func(c *Config) { c.Server = "" }, "server"},
		{"no token", func(c *Config) { c.Token = "" }, "token"},
		{"nothing", func(c *Config) { c.Server, c.Token = "", "" }, "server token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := Default()
			settings.Server, settings.Token = "https://10.0.0.1:9345", "secret"
			c.change(&settings)
			var problems Problems
			if err := settings.CheckAgent(); err != nil && !errors.As(err, &problems) {
				t.Fatalf("got %v, want Problems", err)
			}
			var keys []string
			for _, p := range problems {
				keys = append(keys, p.Key)
			}
			if got := strings.Join(keys, " "); got != c.keys {
				t.Errorf("got problems of %q, want of %q", got, c.keys)
			}
		})
	}
}
