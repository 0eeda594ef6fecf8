package bench

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/cpio"
	"keelson/testvm/console"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []float64
		want float64
	}{
		{"none", nil, 0}, {"one", []float64{3}, 3}, {"odd", []float64{9, 1, 5}, 5}, {"even", []float64{4, 1, 2, 9}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := append([]float64(nil), c.in...)
			if got := Median(c.in); got != c.want {
				t.Errorf("Median(%v): got %v, want %v", c.in, got, c.want)
			}
			for i := range before {
				if c.in[i] != before[i] {
					t.Errorf("Median sorted its argument: got %v, want %v", c.in, before)
				}
			}
		})
	}
}

func example() *Result {
	r := &Result{
		When: time.Unix(1795410395, 0).UTC(), Accel: "tcg,thread=multi", HostCPUs: 2, CPUs: cpus, MiB: memory,
		Floor: []float64{20, 30, 25}, FloorCPU: []float64{30, 30, 30}, FloorForeign: []float64{1, 2, 30},
		Boots: []Boot{
			{Ready: 50, Console: 49.5, Pods: 60, CPU: 75, Complete: 3, UsedMiB: 1000, PID1MiB: 20, Timeline: map[string]float64{"init: complete": 5, "node: node Ready": 49.5}},
			{Ready: 45, Console: 44.5, Pods: 63, CPU: 60, Complete: 5, UsedMiB: 1300, PID1MiB: 21, Timeline: map[string]float64{"init: complete": 6}},
			{Ready: 55, Console: 54.5, Pods: 70, CPU: 90, Complete: 4.5, UsedMiB: 1250, PID1MiB: 22, Timeline: map[string]float64{"init: complete": 7}},
		},
		RawMB: 408.9, ZstdMB: 131,
		Rebuilt:  Rebuilt{Raw: []float64{9, 8, 11}, ISO: []float64{12, 16, 17}, PeakMB: []float64{140, 150, 145, 155, 150, 145}},
		Go:       map[string][]float64{"Failover p99-ms": {2, 3, 1}, "Throughput ratio": {0.85, 0.95, 0.8}, "Join agents/s": {20}},
		Clusters: []Joined{{First: 100, Agent: 80, Voter: 150, Second: 200}},
	}
	r.Numbers = r.numbers()
	return r
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := example().Print(&out); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "table.txt")
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("table: got\n%swant\n%s", out.String(), want)
	}
}

func TestNumbersLeaveOutWhatWasNotMeasured(t *testing.T) {
	r := &Result{Floor: []float64{10}, FloorCPU: []float64{10}, FloorForeign: []float64{0}, Boots: []Boot{{Ready: 15, CPU: 20, Complete: 3}}, RawMB: 400}
	for _, n := range r.numbers() {
		if strings.Contains(n.Name, "memory") || strings.Contains(n.Name, "PID 1 resident") || strings.Contains(n.Name, "zstd") || strings.Contains(n.Name, "rebuild") {
			t.Errorf("number %q: got %v, want none", n.Name, n.Median)
		}
		if strings.HasPrefix(n.Name, "boot ratio") && math.Abs(n.Median-1.5) > 1e-9 {
			t.Errorf("ratio: got %v, want 1.5", n.Median)
		}
	}
}

func TestPeakMemory(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     float64
		err      string
	}{
		{"the table's end", "        total   9.1\n        peak memory  145.1           \n", 145.1, ""},
		{"no line", "total 9.1\n", 0, `no such line in "total 9.1\n"`},
		{"no number", "peak memory much\n", 0, `peak memory of a build: strconv.ParseFloat: parsing "much"`},
		{"nothing", "", 0, "no such line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := peakMemory(c.in)
			if got != c.want {
				t.Errorf("peak memory: got %v, want %v", got, c.want)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error: got %v, want %q", err, c.err)
			}
		})
	}
}

func TestParseBusy(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     time.Duration
	}{
		{"a host", "cpu  100 20 30 9999 888 4 5 0 0 0\ncpu0 1 1 1 1 1 1 1\n", 1590 * time.Millisecond},
		{"too short", "cpu 1 2 3\n", 0}, {"another line", "intr 1 2 3 4 5 6 7 8\n", 0}, {"no number", "cpu a b c d e f g h\n", 0}, {"nothing", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parseBusy(c.in); got != c.want {
				t.Errorf("parseBusy: got %s, want %s", got, c.want)
			}
		})
	}
	if hostBusy() <= 0 {
		t.Error("hostBusy: got nothing of this host")
	}
}

func TestDisturbedRuns(t *testing.T) {
	r := &Result{
		FloorCPU: []float64{50, 50, 50}, FloorForeign: []float64{1, 1, 20},
		Boots: []Boot{{CPU: 60, Foreign: 2}, {CPU: 60, Foreign: 30}, {CPU: 60, Foreign: 2}},
	}
	if got := r.disturbed(); got != 2 {
		t.Errorf("disturbed: got %d, want the second boot and the third floor", got)
	}
}

func TestKeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := example().Keep(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Boots) != 3 || back.Boots[0].Timeline["node: node Ready"] != 49.5 || len(back.Numbers) != 22 {
		t.Errorf("kept: got %s", data)
	}
	if err := example().Keep("/no/such/folder/bench.json"); err == nil {
		t.Error("a folder that is not there: got no error")
	}
}

func TestTableWithoutMachines(t *testing.T) {
	r := &Result{HostCPUs: 2, Go: map[string][]float64{"Throughput ratio": {0.95}}}
	r.Numbers = r.numbers()
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "host with 2 CPUs\n") || !strings.Contains(got, ">= 0.9") || strings.Contains(got, "under") || strings.Contains(got, "boot") {
		t.Errorf("table: got\n%s", got)
	}
}

func TestParts(t *testing.T) {
	for _, part := range Parts() {
		if c := (Config{Part: part}); !c.runPart(part) || (part != Node && c.runPart(Node)) {
			t.Errorf("part %s: it, or more than it, is not measured alone", part)
		}
		if !(Config{}).runPart(part) {
			t.Errorf("everything: %s is not in it", part)
		}
	}
	if Join.Machines() || LoadBalancer.Machines() || !Cluster.Machines() || !Part("").Machines() {
		t.Error("Machines: want them for node, cluster and everything")
	}
}

func TestTimeline(t *testing.T) {
	began := time.Unix(1000, 0)
	var lines []console.Line
	for i, text := range []string{
		"SeaBIOS", "keelson: boot: clock: ok (3 ms)", "keelson: boot: complete in 2.000 s", "keelson: user-data: x",
		"keelson: node: containerd ready (5 s)", "keelson: node: containerd ready (9 s)",
	} {
		lines = append(lines, console.Line{At: began.Add(time.Duration(i) * time.Second), Text: text})
	}
	got := timeline(lines, began)
	want := map[string]float64{"init: clock": 1, "init: complete": 2, "node: containerd ready": 4}
	if len(got) != len(want) {
		t.Errorf("timeline: got %v, want %v", got, want)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("timeline: %s: got %v, want %v, the first time", k, got[k], v)
		}
	}
}

func TestMemory(t *testing.T) {
	var b Boot
	if err := b.memory("MemTotal 4096000\nMemAvailable 3072000\nPID1VmRSS 20480\nPID1RssAnon 9000\n"); err != nil {
		t.Fatal(err)
	}
	if b.UsedMiB != 1000 || b.PID1MiB != 20 {
		t.Errorf("memory: got %v and %v MiB, want 1000 and 20", b.UsedMiB, b.PID1MiB)
	}
	for _, bad := range []string{"", "MemTotal 1\n", "MemTotal x\nMemAvailable 1\nPID1VmRSS 1\n"} {
		if err := b.memory(bad); err == nil {
			t.Errorf("memory of %q: got no error", bad)
		}
	}
}

func FuzzMemory(f *testing.F) {
	f.Add("MemTotal 4096000\nMemAvailable 3072000\nPID1VmRSS 20480\n")
	f.Fuzz(func(t *testing.T, out string) {
		var b Boot
		if b.memory(out) == nil && b.PID1MiB == 0 {
			t.Errorf("%q: got no size of PID 1 and no error", out)
		}
	})
}

func TestFloorPKI(t *testing.T) {
	now := time.Unix(1795410395, 0)
	files, err := floorPKI(now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files["ca.crt"]) {
		t.Fatal("ca.crt holds no certificate")
	}
	for name, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth} {
		pair, err := tls.X509KeyPair(files[name+".crt"], files[name+".key"])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cert, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1", CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	block, _ := pem.Decode(files["service.key"])
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
		t.Errorf("service.key: %v", err)
	}
}

func TestFloorTreeIsAnInitramfs(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := floorTree(program, program)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/init", "/bundle", "/etcd", "/kube-apiserver", "/pki/ca.crt", "/pki/server.key", "/pki/service.key"} {
		if _, ok := files.Get(name); !ok {
			t.Errorf("%s is not in it", name)
		}
	}
	var out bytes.Buffer
	if err := cpio.Write(&out, files); err != nil || !bytes.HasPrefix(out.Bytes(), []byte("070701")) {
		t.Errorf("archive: got %q, %v, want an uncompressed newc", out.Bytes()[:min(6, out.Len())], err)
	}
	if _, err := floorTree("/no/such/program", program); err == nil {
		t.Error("no init: got no error")
	}
}

// Two edits must not be the same program, or the build would have it already.
func TestEditsDiffer(t *testing.T) {
	if edit(1) == edit(2) {
		t.Error("two edits are the same")
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "edit.go", edit(math.MaxInt64), 0); err != nil {
		t.Error(err)
	}
}
