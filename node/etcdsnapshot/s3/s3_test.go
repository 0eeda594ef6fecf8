package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/etcdsnapshot"
)

var _ etcdsnapshot.Remote = (*Store)(nil)

// serve runs the fake with TLS and gives a configuration that reaches it.
func serve(t *testing.T) (*fake, etcdsnapshot.S3Config) {
	t.Helper()
	f := newFake()
	s := httptest.NewTLSServer(f)
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return f, etcdsnapshot.S3Config{
		Endpoint: s.Listener.Addr().String(), EndpointCA: base64.StdEncoding.EncodeToString(ca), Region: "eu-test-1",
		Bucket: "backups", Folder: "clusters/one", AccessKey: "AK", SecretKey: "SK", Timeout: metav1.Duration{Duration: 20 * time.Second},
	}
}

func connect(t *testing.T, c etcdsnapshot.S3Config) *Store {
	t.Helper()
	s, err := Connect(context.Background(), c, "cluster-1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write makes a file of incompressible bytes.
func write(t *testing.T, size int) (string, []byte) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestRoundTrip(t *testing.T) {
	f, c := serve(t)
	ctx := context.Background()
	for _, insecure := range []bool{false, true} {
		if insecure {
			plain := httptest.NewServer(f)
			defer plain.Close()
			c.Endpoint, c.Insecure = plain.Listener.Addr().String(), true
		}
		s := connect(t, c)
		path, data := write(t, 100_000)
		put, err := s.Put(ctx, path, etcdsnapshot.File{Name: "etcd-snapshot-cp-1-1700000000", Node: "cp-1", TokenHash: "abc", Metadata: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatalf("insecure %v: %v", insecure, err)
		}
		if put.Location != "s3://backups/clusters/one/etcd-snapshot-cp-1-1700000000" || put.S3 == nil || put.Size != 100_000 {
			t.Errorf("got %+v", put)
		}
		if !bytes.Equal(f.objects["clusters/one/etcd-snapshot-cp-1-1700000000"].data, data) {
			t.Error("the object's bytes differ")
		}
		if got := string(f.objects["clusters/one/.metadata/etcd-snapshot-cp-1-1700000000"].data); got != `{"a":"b"}` {
			t.Errorf("metadata %q", got)
		}
		f.objects["clusters/one/foreign"] = object{data: []byte("x"), at: time.Now()}
		f.objects["clusters/two/other"] = object{data: []byte("x"), at: time.Now()}
		list, err := s.List(ctx)
		if err != nil || len(list) != 2 {
			t.Fatalf("got %+v, %v; want the folder's two", list, err)
		}
		if list[0].Node != "cp-1" || list[0].TokenHash != "abc" || list[0].Location != put.Location || list[1].Node != "s3" {
			t.Errorf("got %+v", list)
		}
		target := filepath.Join(t.TempDir(), "back")
		if err := s.Fetch(ctx, list[0].Name, target); err != nil {
			t.Fatal(err)
		}
		if back, err := os.ReadFile(target); err != nil || !bytes.Equal(back, data) {
			t.Errorf("what came back differs: %v", err)
		}
		if err := s.Delete(ctx, list[0].Name); err != nil {
			t.Fatal(err)
		}
		if len(f.objects) != 2 {
			t.Errorf("left %d objects, want the two of others", len(f.objects))
		}
	}
}

func TestMultipart(t *testing.T) {
	f, c := serve(t)
	s := connect(t, c)
	s.part = 5 << 20
	path, data := write(t, 12<<20)
	put, err := s.Put(context.Background(), path, etcdsnapshot.File{Name: "big-cp-1-1", Node: "cp-1"})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.objects["clusters/one/big-cp-1-1"].data, data) || put.Size != 12<<20 {
		t.Error("the object differs")
	}
	parts := slices.DeleteFunc(slices.Clone(f.requests), func(r string) bool { return !strings.Contains(r, "partNumber=") })
	if len(parts) != 3 {
		t.Errorf("parts: %v, want 3", parts)
	}
}

// A snapshot goes from the disk to the network: what is allocated on the way does not grow with it.
func TestUploadMemory(t *testing.T) {
	f, c := serve(t)
	f.discard = true
	s := connect(t, c)
	s.part = 16 << 20
	path, _ := write(t, 64<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := s.Put(context.Background(), path, etcdsnapshot.File{Name: "big-cp-1-1", Node: "cp-1"}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 || f.taken != 64<<20 {
		t.Errorf("%d KiB were allocated for an upload of %d MiB", grown>>10, f.taken>>20)
	}
}

func TestFailedUploadLeavesNothing(t *testing.T) {
	f, c := serve(t)
	s := connect(t, c)
	s.part = 5 << 20
	path, _ := write(t, 12<<20)
	f.refuse = func(r *http.Request) (int, string) {
		if r.URL.Query().Get("partNumber") == "2" {
			return 403, "AccessDenied"
		}
		return 0, ""
	}
	_, err := s.Put(context.Background(), path, etcdsnapshot.File{Name: "big-cp-1-1", Node: "cp-1"})
	if err == nil || !strings.Contains(err.Error(), "no right") {
		t.Errorf("got %v", err)
	}
	if f.aborted != 1 || len(f.objects) != 0 {
		t.Errorf("%d uploads aborted, %d objects; want 1 and 0", f.aborted, len(f.objects))
	}
}

func TestConnectRefuses(t *testing.T) {
	_, good := serve(t)
	good.Timeout.Duration = 20 * time.Second
	for name, c := range map[string]struct {
		change func(*etcdsnapshot.S3Config)
		says   string
	}{
		"no bucket":      {func(c *etcdsnapshot.S3Config) { c.Bucket = "" }, "etcd-s3-bucket"},
		"other bucket":   {func(c *etcdsnapshot.S3Config) { c.Bucket = "elsewhere" }, "does not exist"},
		"half a key":     {func(c *etcdsnapshot.S3Config) { c.SecretKey = "" }, "set both"},
		"wrong key":      {func(c *etcdsnapshot.S3Config) { c.AccessKey = "XX" }, "s3 "},
		"lookup":         {func(c *etcdsnapshot.S3Config) { c.BucketLookup = "magic" }, "auto, dns and path"},
		"proxy":          {func(c *etcdsnapshot.S3Config) { c.Proxy = "proxy" }, "etcd-s3-proxy"},
		"CA file":        {func(c *etcdsnapshot.S3Config) { c.EndpointCA = "/no/such/file" }, "etcd-s3-endpoint-ca"},
		"CA of nothing":  {func(c *etcdsnapshot.S3Config) { c.EndpointCA = base64.StdEncoding.EncodeToString([]byte("x")) }, "PEM"},
		"unknown CA":     {func(c *etcdsnapshot.S3Config) { c.EndpointCA = "" }, "certificate"},
		"endpoint a URL": {func(c *etcdsnapshot.S3Config) { c.Endpoint = "https://host/path" }, "etcd-s3-endpoint"},
	} {
		config := good
		c.change(&config)
		_, err := Connect(context.Background(), config, "")
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "SK") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
	skipping := good
	skipping.EndpointCA, skipping.SkipSSLVerify = "", true
	if _, err := Connect(context.Background(), skipping, ""); err != nil {
		t.Errorf("skip-ssl-verify: %v", err)
	}
}

func TestTimeout(t *testing.T) {
	f, c := serve(t)
	s := connect(t, c)
	s.config.Timeout.Duration = 50 * time.Millisecond
	f.refuse = func(r *http.Request) (int, string) { <-r.Context().Done(); return 500, "InternalError" }
	if _, err := s.List(context.Background()); err == nil || !strings.Contains(err.Error(), "etcd-s3-timeout") {
		t.Errorf("got %v", err)
	}
}

func TestFetchAndDeleteTakeNamesOnly(t *testing.T) {
	_, c := serve(t)
	s := connect(t, c)
	for _, name := range []string{"../two/x", "a/b", "", ".metadata"} {
		if err := s.Delete(context.Background(), name); !errors.Is(err, etcdsnapshot.ErrRequest) {
			t.Errorf("delete %q: %v", name, err)
		}
		if err := s.Fetch(context.Background(), name, "/nowhere"); !errors.Is(err, etcdsnapshot.ErrRequest) {
			t.Errorf("fetch %q: %v", name, err)
		}
	}
	target := filepath.Join(t.TempDir(), "x")
	if err := s.Fetch(context.Background(), "gone", target); err == nil {
		t.Error("an object that is not there was fetched")
	}
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Errorf("a file stays: %v", err)
	}
}

func TestFromSecret(t *testing.T) {
	data := map[string][]byte{}
	for k, v := range map[string]string{
		"endpoint": "e", "endpoint-ca": "ca", "bucket": "b", "access-key": "a", "secret-key": "s", "session-token": "t", "folder": "f",
		"region": "r", "proxy": "http://p:1", "timeout": "3m", "retention": "7", "bucket-lookup-type": "path", "insecure": "true", "skip-ssl-verify": "true",
	} {
		data["etcd-s3-"+k] = []byte(v)
	}
	want := etcdsnapshot.S3Config{Endpoint: "e", EndpointCA: "ca", Bucket: "b", AccessKey: "a", SecretKey: "s", SessionToken: "t", Folder: "f",
		Region: "r", Proxy: "http://p:1", Timeout: metav1.Duration{Duration: 3 * time.Minute}, Retention: 7, BucketLookup: "path", Insecure: true, SkipSSLVerify: true}
	if got, err := FromSecret(etcdsnapshot.S3Config{}, data); err != nil || got != want {
		t.Errorf("got %#v, %v", got, err)
	}
	set := etcdsnapshot.S3Config{AccessKey: "mine", SecretKey: "too", Bucket: "here", Retention: 1}
	got, err := FromSecret(set, data)
	if err != nil || got.AccessKey != "mine" || got.SessionToken != "" || got.Bucket != "here" || got.Retention != 1 || got.Region != "r" {
		t.Errorf("got %#v, %v; want what was set to stay", got, err)
	}
	data["etcd-s3-timeout"], data["etcd-s3-retention"], data["etcd-s3-insecure"] = []byte("soon"), []byte("all"), []byte("maybe")
	_, err = FromSecret(etcdsnapshot.S3Config{ConfigSecret: "backup"}, data)
	for _, says := range []string{"timeout", "retention", "insecure", "kube-system/backup"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q in it", err, says)
		}
	}
}

func TestConnector(t *testing.T) {
	_, c := serve(t)
	ctx := context.Background()
	data := map[string][]byte{"etcd-s3-bucket": []byte("backups"), "etcd-s3-access-key": []byte("AK"), "etcd-s3-secret-key": []byte("SK")}
	c.Bucket, c.AccessKey, c.SecretKey, c.ConfigSecret = "", "", "", "backup"
	read := func(_ context.Context, name string) (map[string][]byte, error) {
		if name != "backup" {
			return nil, errors.New("not found")
		}
		return data, nil
	}
	remote, err := Connector("cluster-1", read)(ctx, c)
	if err != nil || remote.Target().Bucket != "backups" {
		t.Errorf("got %+v, %v", remote, err)
	}
	c.ConfigSecret = "other"
	if remote, err := Connector("", read)(ctx, c); remote != nil || err == nil || !strings.Contains(err.Error(), "kube-system/other") {
		t.Errorf("got %+v, %v", remote, err)
	}
	if remote, err := Connector("", nil)(ctx, c); remote != nil || !errors.Is(err, etcdsnapshot.ErrRequest) {
		t.Errorf("got %+v, %v", remote, err)
	}
	c.ConfigSecret = ""
	if remote, err := Connector("", nil)(ctx, c); remote != nil || err == nil {
		t.Errorf("a failed connection gives %+v, %v; want nil and the error", remote, err)
	}
}

// TestWhatToDo: an answer that an operator can do something about says what.
func TestWhatToDo(t *testing.T) {
	for code, want := range map[string]string{
		"NoSuchBucket": "correct etcd-s3-bucket", "AccessDenied": "no right to do this", "InvalidAccessKeyId": "correct etcd-s3-access-key",
		"SignatureDoesNotMatch": "etcd-s3-secret-key", "RequestTimeTooSkewed": "clock is off",
	} {
		f, c := serve(t)
		s := connect(t, c)
		f.refuse = func(*http.Request) (int, string) { return 403, code }
		if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/backups: ") {
			t.Errorf("%s: got %v, want %q", code, err, want)
		}
	}
}

func TestBucketLookup(t *testing.T) {
	for _, text := range []string{"", "auto", "dns", "path"} {
		if _, err := bucketLookup(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := bucketLookup("DNS"); !errors.Is(err, etcdsnapshot.ErrRequest) {
		t.Errorf("another word: got %v", err)
	}
	if s := (&Store{config: etcdsnapshot.S3Config{Retention: 7}}); s.Retention() != 7 {
		t.Errorf("keeps %d, want 7", s.Retention())
	}
}
