package source

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/userdata"
)

// seed is what ds=nocloud says: where the documents are, and what the machine
// is called (canonical/cloud-init doc/rtd/reference/datasources/nocloud.rst).
type seed struct {
	place    string // where this was said, for messages
	url      string // with a slash at its end, "" for none
	id, name string
}

// parseSeed reads ds=nocloud;s=URL;h=NAME;i=ID. False for every other text.
func parseSeed(text, place string, id dmi.Identity) (seed, bool) {
	fields := strings.Split(strings.Trim(strings.TrimSpace(text), `"`), ";")
	if fields[0] != "ds=nocloud" && fields[0] != "ds=nocloud-net" {
		return seed{}, false
	}
	s := seed{place: place}
	for _, f := range fields[1:] {
		switch key, value, _ := strings.Cut(f, "="); key {
		case "s", "seedfrom":
			s.url = folder(expand(value, id))
		case "h", "local-hostname":
			s.name = value
		case "i", "instance-id":
			s.id = value
		}
	}
	return s, true
}

// folder makes an address one that the names of documents can follow.
func folder(address string) string {
	if address == "" || strings.HasSuffix(address, "/") || strings.Contains(address, "?") {
		return address
	}
	return address + "/"
}

// expand puts values of SMBIOS in place of __dmi.NAME__, so that one address
// serves many machines. What is not known stays as it is.
func expand(address string, id dmi.Identity) string {
	const open, end = "__dmi.", "__"
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(address, open)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		word, after, closed := strings.Cut(rest, end)
		if value, known := id.Value(word); closed && known {
			out.WriteString(url.PathEscape(value))
		} else {
			out.WriteString(open)
			after = rest
		}
		address = after
	}
}

// seeds finds every one that names an address or the machine, the weakest
// first: SMBIOS, a volume's meta-data, the kernel command line.
func seeds(cfg Config, local userdata.Documents) (out []seed) {
	for _, text := range append([]string{cfg.Machine.ProductSerial}, cfg.Machine.OEM...) {
		if s, ok := parseSeed(text, "SMBIOS", cfg.Machine); ok {
			out = append(out, s)
		}
	}
	for _, d := range local.Meta {
		var meta struct {
			From string `yaml:"seedfrom"`
		}
		if yaml.Unmarshal(d.Data, &meta) == nil && meta.From != "" { // what is wrong with it, userdata.Load says
			out = append(out, seed{place: d.Source, url: folder(expand(meta.From, cfg.Machine))})
		}
	}
	for _, word := range strings.Fields(cfg.Cmdline) {
		if s, ok := parseSeed(word, "kernel command line", cfg.Machine); ok {
			out = append(out, s)
		}
	}
	return out
}

// fetch reads the documents below the address. One of them must be there:
// somebody who names a place means to have put something into it.
func (s seed) fetch(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
	source := "NoCloud at " + plainAddress(s.url)
	for _, name := range names() {
		data, err := metadata.Optional(c.Get(ctx, s.url+name, nil))
		if err != nil {
			return docs, fmt.Errorf("%s (%s): %w", source, s.place, err)
		}
		for _, d := range metadata.Document(source, name, data) {
			add(&docs, name, d)
		}
	}
	if docs.Empty() {
		return docs, fmt.Errorf("%s (%s): there is neither of %s", source, s.place, strings.Join(names(), ", "))
	}
	return docs, nil
}

// own is what ds= itself says of the machine.
func (s seed) own() userdata.Documents {
	return userdata.Documents{Meta: metadata.Meta(s.place+": ds=nocloud", s.id, s.name)}
}

// documentURL is cloud-init's kernel parameter for the address of one document.
const documentURL = "cloud-config-url"

// fetchDocument reads the user-data that documentURL names.
func fetchDocument(address string) func(context.Context, *metadata.Client) (userdata.Documents, error) {
	return func(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
		data, err := c.Get(ctx, address, nil)
		if err != nil {
			return docs, fmt.Errorf("kernel command line: %s: %w", documentURL, err)
		}
		docs.User = metadata.Document("kernel command line: "+documentURL, plainAddress(address), data)
		return docs, nil
	}
}

// plainAddress leaves out what may be secret in an address.
func plainAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}
