// Package ec2 reads the instance metadata of Amazon EC2, version 2 of its
// protocol alone: a token first, then the documents with it.
//
// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide, "Use the Instance
// Metadata Service". Package source starts Fetch once the network is up.
package ec2

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/userdata"
)

// Name is what messages call this source.
const Name = "EC2 metadata"

// services are the addresses of the one service: by IPv4, and where the
// machine has none by IPv6.
func services() []string { return []string{"http://169.254.169.254", "http://[fd00:ec2::254]"} }

// tokenTTL is how long the token may be used, in seconds.
const tokenTTL = "600"

// Here tells a Nitro machine by its vendor, and a Xen one by its firmware and
// the beginning of its UUID.
func Here(id dmi.Identity) bool {
	return id.SystemVendor == "Amazon EC2" ||
		strings.HasSuffix(id.BIOSVersion, "amazon") && strings.HasPrefix(strings.ToLower(id.ProductUUID), "ec2")
}

// Fetch reads what the instance was started with.
func Fetch(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
	var errs []error
	for _, service := range services() {
		token, err := token(ctx, c, service)
		if err == nil {
			return read(ctx, c, service, token)
		}
		errs = append(errs, err)
		if errors.Is(err, metadata.ErrFinal) {
			break
		}
	}
	return docs, fmt.Errorf("%s: %w", Name, errors.Join(errs...))
}

func token(ctx context.Context, c *metadata.Client, service string) (string, error) {
	a, err := c.Do(ctx, metadata.Request{Method: "PUT", URL: service + "/latest/api/token",
		Header: map[string]string{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": tokenTTL}})
	if errors.Is(err, metadata.ErrFinal) {
		return "", fmt.Errorf("%w; enable the metadata service of the instance", err)
	}
	if err != nil {
		return "", err
	}
	return metadata.Word(a.Body), nil
}

func read(ctx context.Context, c *metadata.Client, service, token string) (docs userdata.Documents, err error) {
	get := func(path string) ([]byte, error) {
		return metadata.Optional(c.Get(ctx, service+"/latest/"+path, map[string]string{"X-Aws-Ec2-Metadata-Token": token}))
	}
	id, err := get("meta-data/instance-id")
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	hostname, err := get("meta-data/local-hostname")
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	user, err := get("user-data")
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	name, _, _ := strings.Cut(metadata.Word(hostname), " ") // one name an address, in machines with several
	docs.Meta = metadata.Meta(Name, metadata.Word(id), name)
	docs.User = metadata.Document(Name, "user-data", user)
	return docs, nil
}
