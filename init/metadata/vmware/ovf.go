package vmware

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"

	"keelson/init/metadata"
	"keelson/init/userdata"
)

// OVF is the file on the CD.
const OVF = "ovf-env.xml"

// ReadOVF takes the properties of an OVF environment that cloud-init knows.
// user-data and network-config are base64; a text that is not is taken as it is.
func ReadOVF(source string, data []byte) (docs userdata.Documents, err error) {
	var env struct {
		XMLName  xml.Name `xml:"Environment"`
		Property []struct {
			Key   string `xml:"key,attr"`
			Value string `xml:"value,attr"`
		} `xml:"PropertySection>Property"`
	}
	if err := xml.Unmarshal(data, &env); err != nil {
		return docs, fmt.Errorf("%s: %s: %w", source, OVF, err)
	}
	about := map[string]string{}
	for _, p := range env.Property {
		switch p.Key {
		case "user-data":
			docs.User = metadata.Document(source, OVF+": user-data", plain(p.Value))
		case "network-config":
			docs.Network = metadata.Document(source, OVF+": network-config", plain(p.Value))
		case "hostname":
			if about["local-hostname"] == "" {
				about["local-hostname"] = p.Value
			}
		case "local-hostname", "instance-id", "seedfrom":
			about[p.Key] = p.Value
		}
	}
	var text strings.Builder
	for _, key := range []string{"instance-id", "local-hostname", "seedfrom"} {
		if about[key] != "" {
			fmt.Fprintf(&text, "%s: %q\n", key, about[key])
		}
	}
	docs.Meta = metadata.Document(source, OVF+": properties", []byte(text.String()))
	return docs, nil
}

func plain(text string) []byte {
	if data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err == nil {
		return data
	}
	return []byte(text)
}
