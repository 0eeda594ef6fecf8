package sbom

const noAssertion = "NOASSERTION"

type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID               string         `json:"SPDXID"`
	Name             string         `json:"name"`
	Version          string         `json:"versionInfo,omitempty"`
	Supplier         string         `json:"supplier"`
	Download         string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	SourceInfo       string         `json:"sourceInfo,omitempty"`
	LicenseConcluded string         `json:"licenseConcluded"`
	LicenseDeclared  string         `json:"licenseDeclared"`
	Copyright        string         `json:"copyrightText"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	Refs             []spdxRef      `json:"externalRefs,omitempty"`
	Purpose          string         `json:"primaryPackagePurpose"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// SPDX renders the document as SPDX 2.3 JSON.
func (d Document) SPDX() ([]byte, error) {
	id, err := d.id("spdx")
	if err != nil {
		return nil, err
	}
	const document, image = "SPDXRef-DOCUMENT", "SPDXRef-image"
	out := spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: document, Name: d.Name + "-" + d.Version, Namespace: "urn:uuid:" + id,
		Creation: spdxCreation{d.stamp(), []string{"Tool: " + tool}},
		Packages: []spdxPackage{{
			ID: image, Name: d.Name, Version: d.Version, Supplier: noAssertion, Download: noAssertion,
			LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, Copyright: noAssertion, Purpose: "OPERATING-SYSTEM",
		}},
		Relationships: []spdxRelationship{{document, "DESCRIBES", image}},
	}
	components := d.sorted()
	ids := map[string]string{}
	for _, c := range components {
		ids[c.ID()] = spdxID(c)
	}
	for _, c := range components {
		p := spdxPackage{
			ID: spdxID(c), Name: c.Name, Version: c.Version, Supplier: noAssertion, Download: noAssertion, SourceInfo: c.Source,
			LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, Copyright: noAssertion, Purpose: "LIBRARY",
		}
		switch c.Kind {
		case Debian, Library:
			p.Supplier = "Organization: Debian"
			if c.Kind == Debian {
				p.Purpose = "INSTALL"
			}
			if c.Source != "" {
				p.SourceInfo = "built from Debian source package " + c.Source
			}
		case Program:
			p.Purpose = "APPLICATION"
		}
		if c.Licence != "" {
			p.LicenseDeclared = c.Licence
		}
		if c.SHA256 != "" {
			p.Checksums = []spdxChecksum{{"SHA256", c.SHA256}}
		}
		if purl := c.PURL(d.Suite); purl != "" {
			p.Refs = []spdxRef{{"PACKAGE-MANAGER", "purl", purl}}
		}
		out.Packages = append(out.Packages, p)
		if !c.inside() {
			out.Relationships = append(out.Relationships, spdxRelationship{image, "CONTAINS", p.ID})
		}
		for _, used := range c.Uses {
			if to, ok := ids[used]; ok {
				out.Relationships = append(out.Relationships, spdxRelationship{p.ID, "CONTAINS", to})
			}
		}
	}
	return render(out)
}
