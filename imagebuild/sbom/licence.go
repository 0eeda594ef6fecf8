package sbom

import (
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// licenceFile matches the names under which the root of a Go module has its terms.
func licenceFile() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^((un)?licen[cs]e|copying)([.-](txt|md|rst|mit|bsd|apache|apache2|apache-2\.0|mpl|libyaml|[0-9a-z-]+))?$`)
}

// enough is how much of a file must be words of licences that are known, in percent: the rest is names and years.
const enough = 75

// maxLicence bounds what is read of a file.
const maxLicence = 1 << 20

// ModuleLicence is the SPDX expression of what the files at the root of a module say; "" where any of them has terms that are
// not known. Several licences are joined by AND: whoever follows them all does right, whatever choice the files leave.
func ModuleLicence(module fs.FS) (string, error) {
	entries, err := fs.ReadDir(module, ".")
	if err != nil {
		return "", fmt.Errorf("sbom: %w", err)
	}
	names := licenceFile()
	var ids []string
	for _, e := range entries {
		if !e.Type().IsRegular() || !names.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := readLicence(module, e.Name())
		if err != nil {
			return "", fmt.Errorf("sbom: %w", err)
		}
		found := licensecheck.Scan(text)
		if found.Percent < enough {
			return "", nil
		}
		for _, m := range found.Match {
			if !m.IsURL {
				ids = append(ids, m.ID)
			}
		}
	}
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), " AND "), nil
}

func readLicence(module fs.FS, name string) ([]byte, error) {
	f, err := module.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxLicence))
}
