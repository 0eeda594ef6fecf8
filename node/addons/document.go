package addons

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// document is one object of a manifest file.
type document struct {
	number int // of the YAML document, from 1
	line   int // where it begins, from 1
	object *unstructured.Unstructured
}

func (d document) String() string {
	return fmt.Sprintf("document %d (line %d): %s %s", d.number, d.line, d.object.GetKind(), d.object.GetName())
}

// load reads a manifest: YAML or JSON, any number of documents, lists taken apart. A broken document does not keep
// the others from being returned; the error names each.
func load(content []byte) ([]document, error) {
	var documents []document
	var problems []error
	for i, part := range split(content) {
		fail := func(err error) {
			problems = append(problems, fmt.Errorf("document %d (line %d): %w", i+1, part.line, err))
		}
		// The parser counts lines from the first that it sees: with those before, its message names the file's line.
		before := bytes.Repeat([]byte("\n"), part.line-1)
		asJSON, err := yaml.YAMLToJSONStrict(append(before, part.text...))
		if err != nil {
			fail(err)
			continue
		}
		if asJSON = bytes.TrimSpace(asJSON); len(asJSON) == 0 || string(asJSON) == "null" {
			continue // comments only
		}
		var fields map[string]any
		if err := json.Unmarshal(asJSON, &fields); err != nil {
			fail(errors.New("is not a mapping; an object has apiVersion, kind and metadata"))
			continue
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(asJSON); err != nil {
			fail(err)
			continue
		}
		if object.IsList() {
			err := object.EachListItem(func(item runtime.Object) error {
				u, ok := item.(*unstructured.Unstructured)
				if !ok {
					return fmt.Errorf("a list item is a %T", item)
				}
				return add(&documents, i+1, part.line, u)
			})
			if err != nil {
				fail(err)
			}
			continue
		}
		if err := add(&documents, i+1, part.line, object); err != nil {
			fail(err)
		}
	}
	return documents, errors.Join(problems...)
}

func add(documents *[]document, number, line int, object *unstructured.Unstructured) error {
	if object.GetAPIVersion() == "" || object.GetKind() == "" {
		return errors.New("has no apiVersion or kind")
	}
	if object.GetName() == "" {
		return fmt.Errorf("%s has no metadata.name; an add-on's objects need fixed names", object.GetKind())
	}
	*documents = append(*documents, document{number, line, object})
	return nil
}

type part struct {
	text []byte
	line int
}

// split cuts a file at lines that are a document separator, as kubectl does (k8s.io/apimachinery pkg/util/yaml).
func split(content []byte) []part {
	var parts []part
	current := part{line: 1}
	number := 0
	for line := range bytes.Lines(content) {
		number++
		if rest, ok := strings.CutPrefix(string(line), "---"); ok {
			if rest = strings.TrimSpace(rest); rest == "" || strings.HasPrefix(rest, "#") {
				parts = append(parts, current)
				current = part{line: number + 1}
				continue
			}
		}
		current.text = append(current.text, line...)
	}
	parts = append(parts, current)
	if len(bytes.TrimSpace(parts[0].text)) == 0 && len(parts) > 1 {
		parts = parts[1:] // a separator on the first line begins the first document
	}
	return parts
}
