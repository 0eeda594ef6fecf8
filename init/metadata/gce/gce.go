// Package gce reads the metadata of Google Compute Engine.
//
// Source: cloud.google.com/compute/docs/metadata. Package source starts Fetch
// once the network is up.
package gce

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
const Name = "GCE metadata"

// The service is asked by its address, which needs no name server.
const (
	host = "metadata.google.internal"
	root = "http://169.254.169.254/computeMetadata/v1/instance/"
)

// Here tells by product or serial number.
func Here(id dmi.Identity) bool {
	return id.ProductName == "Google Compute Engine" || strings.HasPrefix(id.ProductSerial, "GoogleCloud-")
}

// Fetch reads what the instance was started with. user-data-encoding says
// whether the value of user-data is base64, since values are texts.
func Fetch(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
	values := map[string][]byte{}
	for _, name := range []string{"id", "hostname", "attributes/user-data", "attributes/user-data-encoding"} {
		if values[name], err = get(ctx, c, name); err != nil {
			return docs, fmt.Errorf("%s: %w", Name, err)
		}
	}
	user := values["attributes/user-data"]
	switch encoding := metadata.Word(values["attributes/user-data-encoding"]); encoding {
	case "":
	case "base64":
		if user, err = metadata.Base64("user-data", string(user)); err != nil {
			return docs, fmt.Errorf("%s: %w", Name, err)
		}
	default:
		return docs, fmt.Errorf("%s: user-data-encoding: %.40q is not known; use base64 or remove it: %w", Name, encoding, metadata.ErrFinal)
	}
	docs.Meta = metadata.Meta(Name, metadata.Word(values["id"]), metadata.Word(values["hostname"]))
	docs.User = metadata.Document(Name, "user-data", user)
	return docs, nil
}

// get reads a value. The header tells the service that we know whom we ask, and
// us that it is the service who answers.
func get(ctx context.Context, c *metadata.Client, name string) ([]byte, error) {
	const flavor = "Metadata-Flavor"
	a, err := c.Do(ctx, metadata.Request{URL: root + name, Host: host, Header: map[string]string{flavor: "Google"}})
	if err != nil {
		return metadata.Optional(nil, err)
	}
	if a.Header.Get(flavor) != "Google" {
		return nil, errors.New("something else than the metadata service answers at its address")
	}
	return a.Body, nil
}
