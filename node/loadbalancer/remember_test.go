package loadbalancer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestListIsKeptAcrossRestarts(t *testing.T) {
	a, b := startBackend(t), startBackend(t)
	path := filepath.Join(t.TempDir(), "etc", "rke2-agent-load-balancer.json")
	lb, stop := start(t, Config{Default: "default.test:9345", StateFile: path}, nil)
	lb.SetServers([]string{a.address})
	lb.SetServers([]string{b.address, a.address})
	stop()
	got, err := os.ReadFile(path)
	want := "{\n  \"ServerURL\": \"https://default.test:9345\",\n  \"ServerAddresses\": [\n    \"" + b.address + "\",\n    \"" + a.address + "\"\n  ]\n}"
	if err != nil || string(got) != want {
		t.Fatalf("got %s, %v; want %s", got, err, want)
	}

	b.kill()
	lb, stop = start(t, Config{Default: "default.test:9345", StateFile: path}, nil)
	connect(t, lb).expect(t, a) // without a word from the cluster
	stop()

	lb, stop = start(t, Config{StateFile: path}, nil) // no default of its own: the file's
	connect(t, lb).expect(t, a)
	if !slices.ContainsFunc(lb.Servers(), func(s Server) bool { return s.Address == "default.test:9345" && s.State == Standby }) {
		t.Errorf("got %+v, want the file's default as a last resort", lb.Servers())
	}
	stop()

	lb, _ = start(t, Config{Default: "other.test:9345", StateFile: path}, nil)
	await(t, lb, "other.test:9345:UNCHECKED")
}

func TestListIsWrittenWhileRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	lb, stop := start(t, Config{StateFile: path}, nil)
	lb.SetServers([]string{"a:1"})
	for {
		if data, err := os.ReadFile(path); err == nil {
			if !strings.Contains(string(data), `"https://a:1"`) {
				t.Errorf("got %s", data)
			}
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("never written")
		}
	}
	stop()
}

func TestFileThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct{ name, data string }{
		{"torn", `{"ServerURL": "https://a:1", "Serv`},
		{"empty", ``},
		{"too long", strings.Repeat(" ", maxFile+1)},
		{"address", `{"ServerURL": "https://a:1", "ServerAddresses": ["b"]}`},
		{"default", `{"ServerURL": "a:1", "ServerAddresses": ["b:1"]}`},
		{"too many", `{"ServerURL": "https://a:1", "ServerAddresses": [` + strings.Repeat(`"b:1",`, maxServers) + `"b:1"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte(c.data), 0o600); err != nil {
				t.Fatal(err)
			}
			lb, stop := start(t, Config{Default: "a:1", StateFile: path}, nil)
			await(t, lb, "a:1:UNCHECKED")
			lb.SetServers([]string{"c:1"})
			stop()
			data, err := os.ReadFile(path)
			if _, list, bad := parse(data); err != nil || bad != nil || len(list) != 1 || list[0] != "c:1" {
				t.Errorf("afterwards: got %s, %v, %v; want the list learnt", data, err, bad)
			}
		})
	}
}

func TestUnwritableFileStopsNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := startBackend(t)
	lb, _ := start(t, Config{StateFile: filepath.Join(dir, "file", "below")}, nil)
	lb.SetServers([]string{a.address})
	connect(t, lb).expect(t, a)
}

func TestTooManyServers(t *testing.T) {
	lb, _ := start(t, Config{}, nil)
	var list []string
	for i := range maxServers + 10 {
		list = append(list, "host"+strings.Repeat("x", i)+":1")
	}
	lb.SetServers(list)
	if got := len(lb.Servers()); got != maxServers {
		t.Errorf("%d servers, want %d", got, maxServers)
	}
}

// FuzzParse: whatever is accepted can be written and read again, and dialled.
func FuzzParse(f *testing.F) {
	f.Add([]byte("{\n  \"ServerURL\": \"https://a:1\",\n  \"ServerAddresses\": [\"b:1\", \"[::1]:2\"]\n}"))
	f.Add([]byte(`{"ServerURL":"","ServerAddresses":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fallback, list, err := parse(data)
		if err != nil || fallback == "" {
			return
		}
		again, err := render(fallback, list)
		if err != nil {
			t.Fatal(err)
		}
		fallback2, list2, err := parse(again)
		if err != nil || fallback2 != fallback || !slices.Equal(list, list2) {
			t.Errorf("got %q %q, %v; want %q %q", fallback2, list2, err, fallback, list)
		}
	})
}
