package userdata

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// syntaxError finds the line of a mistake in YAML. The library names the line
// where the map or list around the mistake begins, which may be a page above
// it; the mistake itself is after the longest beginning of the document that
// can be read.
func syntaxError(data []byte, err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	named := 0
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		named, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if strings.HasPrefix(text, "unknown anchor") { // a token may begin with *, so its text is not repeated
		text = "a value that begins with * and is not in quotes"
	}
	const window = 64
	end := linesRead(data)
	for n := end; n > 0 && n > end-window; n-- {
		if readable(beginning(data, n-1)) {
			return n, text
		}
	}
	// A bracket or quote opened far above: the named line is right for mistakes
	// the scanner finds, and one too small for those of the parser.
	if named > 0 && readable(beginning(data, named-1)) && !readable(beginning(data, named)) {
		return named, text
	}
	return named + 1, text
}

// linesRead counts the lines that the parser had to see to fail.
func linesRead(data []byte) int {
	in := &lineReader{data: data}
	var n yaml.Node
	_ = yaml.NewDecoder(in).Decode(&n) // it is known to fail
	return in.lines
}

// lineReader hands out one line a call.
type lineReader struct {
	data  []byte
	lines int
}

func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	end := bytes.IndexByte(r.data, '\n') + 1
	if end == 0 {
		end = len(r.data)
	}
	n := copy(p, r.data[:end])
	r.data = r.data[n:]
	if n == end {
		r.lines++
	}
	return n, nil
}

// beginning returns the first n lines.
func beginning(data []byte, n int) []byte {
	at := 0
	for ; n > 0; n-- {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return data
		}
		at += i + 1
	}
	return data[:at]
}

func readable(data []byte) bool {
	var n yaml.Node
	err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&n)
	return err == nil || errors.Is(err, io.EOF)
}
