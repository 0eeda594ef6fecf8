package sbom

type cdxDocument struct {
	Format       string          `json:"bomFormat"`
	SpecVersion  string          `json:"specVersion"`
	Serial       string          `json:"serialNumber"`
	Version      int             `json:"version"`
	Metadata     cdxMetadata     `json:"metadata"`
	Components   []cdxComponent  `json:"components"`
	Dependencies []cdxDependency `json:"dependencies"`
}

type cdxMetadata struct {
	Timestamp string       `json:"timestamp"`
	Tools     cdxTools     `json:"tools"`
	Component cdxComponent `json:"component"`
}

type cdxTools struct {
	Components []cdxComponent `json:"components"`
}

type cdxComponent struct {
	Type       string        `json:"type"`
	Ref        string        `json:"bom-ref,omitempty"`
	Supplier   *cdxSupplier  `json:"supplier,omitempty"`
	Name       string        `json:"name"`
	Version    string        `json:"version,omitempty"`
	Hashes     []cdxHash     `json:"hashes,omitempty"`
	Licenses   []cdxLicence  `json:"licenses,omitempty"`
	PURL       string        `json:"purl,omitempty"`
	Properties []cdxProperty `json:"properties,omitempty"`
}

type cdxSupplier struct {
	Name string `json:"name"`
}

type cdxHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type cdxLicence struct {
	Expression string `json:"expression"`
}

type cdxProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type cdxDependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// CycloneDX renders the document as CycloneDX 1.6 JSON.
func (d Document) CycloneDX() ([]byte, error) {
	id, err := d.id("cyclonedx")
	if err != nil {
		return nil, err
	}
	const image = "image"
	out := cdxDocument{
		Format: "CycloneDX", SpecVersion: "1.6", Serial: "urn:uuid:" + id, Version: 1,
		Metadata: cdxMetadata{
			Timestamp: d.stamp(), Tools: cdxTools{[]cdxComponent{{Type: "application", Name: tool}}},
			Component: cdxComponent{Type: "operating-system", Ref: image, Name: d.Name, Version: d.Version},
		},
		Components: []cdxComponent{},
	}
	whole := cdxDependency{Ref: image}
	var others []cdxDependency
	components := d.sorted()
	known := map[string]bool{}
	for _, c := range components {
		known[c.ID()] = true
	}
	for _, c := range components {
		one := cdxComponent{Type: "library", Ref: c.ID(), Name: c.Name, Version: c.Version, PURL: c.PURL(d.Suite)}
		switch c.Kind {
		case Debian, Library:
			one.Supplier = &cdxSupplier{"Debian"}
			if c.Source != "" {
				one.Properties = []cdxProperty{{"keelson:debian:source", c.Source}}
			}
		case Program:
			one.Type = "application"
		}
		if c.SHA256 != "" {
			one.Hashes = []cdxHash{{"SHA-256", c.SHA256}}
		}
		if c.Licence != "" {
			one.Licenses = []cdxLicence{{c.Licence}}
		}
		out.Components = append(out.Components, one)
		if !c.inside() {
			whole.DependsOn = append(whole.DependsOn, c.ID())
		}
		if len(c.Uses) > 0 {
			dep := cdxDependency{Ref: c.ID()}
			for _, used := range c.Uses {
				if known[used] {
					dep.DependsOn = append(dep.DependsOn, used)
				}
			}
			others = append(others, dep)
		}
	}
	out.Dependencies = append([]cdxDependency{whole}, others...)
	return render(out)
}
