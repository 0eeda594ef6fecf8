package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/metadata/azure"
	"keelson/init/metadata/digitalocean"
	"keelson/init/metadata/ec2"
	"keelson/init/metadata/gce"
	"keelson/init/metadata/hetzner"
	"keelson/init/metadata/openstack"
	"keelson/init/metadata/vmware"
	"keelson/init/userdata"
)

// remote is a source over the network.
type remote struct {
	name  string
	cloud bool                // the machine's own metadata, weaker than what is attached to it
	way   []userdata.Document // network-config to reach it by, where no source gave one
	fetch func(context.Context, *metadata.Client) (userdata.Documents, error)
}

// cloud is one service of metadata.
type cloud struct {
	name  string
	here  func(dmi.Identity) bool
	fetch func(context.Context, *metadata.Client) (userdata.Documents, error)
	way   func(dmi.Identity) []userdata.Document // nil: by DHCP
}

func clouds() []cloud {
	return []cloud{
		{ec2.Name, ec2.Here, ec2.Fetch, nil},
		{gce.Name, gce.Here, gce.Fetch, nil},
		{azure.Name, azure.Here, azure.Fetch, nil},
		{digitalocean.Name, digitalocean.Here, digitalocean.Fetch, digitalocean.Network},
		{hetzner.Name, hetzner.Here, hetzner.Fetch, nil},
		{openstack.Name, openstack.Here, openstack.Fetch, nil},
	}
}

// choose lists the sources to ask over the network: the cloud that the machine
// says it is in, unless user-data is attached to it, and the addresses that
// were named. Nothing is probed.
func choose(cfg Config, f found) (out []remote) {
	if len(f.local.User) == 0 && !f.drive {
		for _, c := range clouds() {
			if c.here(cfg.Machine) {
				r := remote{name: c.name, cloud: true, fetch: c.fetch}
				if c.way != nil {
					r.way = c.way(cfg.Machine)
				}
				out = append(out, r)
				break
			}
		}
	}
	for _, s := range seeds(cfg, f.local) {
		if s.url != "" {
			out = append(out, remote{name: "NoCloud by " + s.place, fetch: s.fetch})
		}
	}
	for _, word := range strings.Fields(cfg.Cmdline) {
		if address, ok := strings.CutPrefix(word, documentURL+"="); ok && address != "" {
			out = append(out, remote{name: documentURL, fetch: fetchDocument(address)})
		}
	}
	return out
}

// Polled reports whether Collect asks a source over the network or a
// hypervisor, where a correction shows by no event.
func Polled(cfg Config) bool {
	if vmware.Here(cfg.Machine) {
		return true
	}
	f, _ := present(cfg)
	return len(choose(cfg, f)) > 0
}

// Reporter returns what tells the cloud that the machine is up, or why it is
// not where failure is not empty; nil where the cloud does not care.
func Reporter(id dmi.Identity) func(ctx context.Context, c *metadata.Client, failure string) error {
	if azure.Here(id) {
		return azure.Report
	}
	return nil
}

// Patience with a source over the network: where the last user-data is kept,
// the machine can go on without it.
const (
	patience       = 2 * time.Minute
	patienceStored = 30 * time.Second
	firstPause     = time.Second
	longestPause   = 15 * time.Second
)

// collectRemote asks the sources in turn and lays their documents between those
// of the ESP and of the machine's attachments, or over them where an address
// was named on purpose.
func collectRemote(ctx context.Context, cfg Config, f found, remotes []remote, stored userdata.Documents, err error) (userdata.Documents, error) {
	bound := patience
	if !stored.Empty() {
		bound = patienceStored
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	var weak, strong userdata.Documents
	for _, r := range remotes {
		docs, rerr := cfg.persist(ctx, r, join(f.esp, weak, f.local, strong))
		switch {
		case rerr != nil && !stored.Empty():
			return stored, errors.Join(err, rerr, errKept)
		case rerr != nil:
			return f.documents(), errors.Join(err, fmt.Errorf("%w: %w", rerr, ErrUnanswered))
		case r.cloud:
			weak = join(weak, docs)
		default:
			strong = join(strong, docs)
		}
	}
	return cfg.withCD(join(f.esp, weak, f.local, strong), stored), err
}

// withCD adds the custom data that an earlier boot has read from Azure's CD,
// which is there until the machine has reported that it is ready, and no more
// after that. Another machine made of this disk has another instance-id.
func (cfg Config) withCD(docs, stored userdata.Documents) userdata.Documents {
	if !azure.Here(cfg.Machine) || len(docs.User) > 0 {
		return docs
	}
	now, _ := userdata.Load(userdata.Documents{Meta: docs.Meta})
	then, _ := userdata.Load(userdata.Documents{Meta: stored.Meta})
	if now.InstanceID == "" || now.InstanceID != then.InstanceID {
		return docs
	}
	for _, d := range stored.User {
		if strings.HasPrefix(d.Source, azureCD) {
			docs.User = append(docs.User, d)
		}
	}
	return docs
}

// client asks for documents; what is known before them says whom to trust.
func (cfg Config) client(before userdata.Documents) *metadata.Client {
	var c metadata.Client
	if cfg.Client != nil {
		c = *cfg.Client
	}
	if cfg.Secure != nil {
		config, _ := userdata.Load(before) // what is wrong with it is said when all of it is there
		c.Secure = func(ctx context.Context, address string) (net.Conn, error) {
			return cfg.Secure(ctx, address, config.CACerts)
		}
	}
	return &c
}

// persist asks until there is an answer, or an error that will not go away, or
// ctx ends. A new reason to wait is told once.
func (cfg Config) persist(ctx context.Context, r remote, before userdata.Documents) (userdata.Documents, error) {
	client := cfg.client(before)
	network := before.Network
	if len(network) == 0 {
		network = r.way
	}
	told := ""
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		var docs userdata.Documents
		var err error
		if cfg.Online != nil {
			err = cfg.Online(ctx, network)
		}
		if err == nil {
			docs, err = r.fetch(ctx, client)
		}
		if err == nil || errors.Is(err, metadata.ErrFinal) {
			return docs, err
		}
		if text := err.Error(); text != told && ctx.Err() == nil {
			told = text
			if cfg.Say != nil {
				cfg.Say(fmt.Sprintf("%s: %s; asked again", r.name, strings.TrimPrefix(text, r.name+": ")))
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return docs, err
		}
	}
}
