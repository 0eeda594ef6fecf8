package sbom

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

const isc = `Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR
CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`

func TestModuleLicence(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for _, c := range []struct {
		name   string
		module fstest.MapFS
		want   string
	}{
		{"one", fstest.MapFS{"LICENSE": file("Copyright (c) 2020 Somebody\n\n" + mit), "go.mod": file("module m")}, "MIT"},
		{"another spelling", fstest.MapFS{"licence.md": file("# Licence\n\n" + isc)}, "ISC"},
		{"copying", fstest.MapFS{"COPYING": file(isc)}, "ISC"},
		{"two in one file", fstest.MapFS{"LICENSE": file("Of some files:\n" + mit + "\nOf the others:\n" + isc)}, "ISC AND MIT"},
		{"two files", fstest.MapFS{"LICENSE-MIT": file(mit), "LICENSE.libyaml": file(isc)}, "ISC AND MIT"},
		{"none", fstest.MapFS{"README.md": file(mit)}, ""},
		{"not known", fstest.MapFS{"LICENSE": file("Do what I say.\n")}, ""},
		{"known, and terms of its own", fstest.MapFS{"LICENSE": file(isc + strings.Repeat("\nNobody may use it on a rainy day, whatever stands above.", 20))}, ""},
		{"one is not known", fstest.MapFS{"LICENSE": file(mit), "LICENSE.other": file("Do what I say.\n")}, ""},
		{"source code", fstest.MapFS{"LICENSE": file(mit), "license.go": file("package m")}, "MIT"},
		{"of a part", fstest.MapFS{"LICENSE": file(mit), "internal/LICENSE": file(isc)}, "MIT"},
	} {
		got, err := ModuleLicence(c.module)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	if _, err := ModuleLicence(os.DirFS(filepath.Join(t.TempDir(), "absent"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no module: got %v", err)
	}
}

// Go's own is where the go command says.
func TestLicenceOfGo(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ModuleLicence(os.DirFS(strings.TrimSpace(string(root)))); err != nil || got != "BSD-3-Clause" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzModuleLicence(f *testing.F) {
	f.Add([]byte(isc))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := ModuleLicence(fstest.MapFS{"LICENSE": {Data: text}}); err != nil {
			t.Fatal(err)
		}
	})
}
