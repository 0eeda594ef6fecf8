package objectstore

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestStoreTakesObjects(t *testing.T) {
	s, err := Start("backups")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/backups/one/a": http.StatusOK, "/absent/a": http.StatusNotFound} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("http://127.0.0.1:%d%s", s.Port(), path), strings.NewReader("content"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: got %s, want %d", path, response.Status, want)
		}
	}
	if names, err := s.Names("backups"); err != nil || !slices.Equal(names, []string{"one/a"}) {
		t.Errorf("got %v, %v", names, err)
	}
	if _, err := s.Names("absent"); err == nil {
		t.Error("a bucket that is not there was listed")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", s.Port())); err == nil {
		t.Error("it still answers")
	}
}
