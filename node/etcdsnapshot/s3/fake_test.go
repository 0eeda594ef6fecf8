package s3

import (
	"bufio"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fake speaks as much of S3 as snapshots need (Amazon S3 API reference), and refuses requests without a signature.
type fake struct {
	mu       sync.Mutex
	bucket   string
	objects  map[string]object
	parts    map[string]map[int][]byte // of uploads that go on
	metas    map[string]http.Header
	requests []string
	aborted  int
	discard  bool  // take parts without keeping them
	taken    int64 // of those
	refuse   func(r *http.Request) (code int, name string)
}

type object struct {
	data []byte
	meta http.Header
	at   time.Time
}

func newFake() *fake {
	return &fake{bucket: "backups", objects: map[string]object{}, parts: map[string]map[int][]byte{}, metas: map[string]http.Header{}}
}

var signature = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=AK/\d{8}/eu-test-1/s3/aws4_request, ?SignedHeaders=[a-z0-9;-]+, ?Signature=[0-9a-f]{64}$`)

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
	if !signature.MatchString(r.Header.Get("Authorization")) {
		answerError(w, 403, "AccessDenied")
		return
	}
	if f.refuse != nil {
		if code, name := f.refuse(r); code != 0 {
			_, _ = io.Copy(io.Discard, r.Body)
			answerError(w, code, name)
			return
		}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != f.bucket {
		answerError(w, 404, "NoSuchBucket")
		return
	}
	if f.discard && r.URL.Query().Has("partNumber") {
		n, _ := io.Copy(io.Discard, r.Body)
		f.taken += n
		w.Header().Set("ETag", tag(nil))
		return
	}
	if f.discard && r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.FormatInt(f.taken, 10))
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		return
	}
	body, err := readBody(r)
	if err != nil {
		answerError(w, 400, "IncompleteBody")
		return
	}
	q := r.URL.Query()
	switch {
	case key == "" && r.Method == http.MethodHead:
	case key == "" && q.Get("list-type") == "2":
		f.list(w, q.Get("prefix"), q.Get("delimiter"))
	case r.Method == http.MethodPost && q.Has("uploads"):
		id := strconv.Itoa(len(f.parts) + 1)
		f.parts[id], f.metas[id] = map[int][]byte{}, metadata(r.Header)
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", bucket, key, id)
	case r.Method == http.MethodPut && q.Has("uploadId"):
		n, _ := strconv.Atoi(q.Get("partNumber"))
		f.parts[q.Get("uploadId")][n] = body
		w.Header().Set("ETag", tag(body))
	case r.Method == http.MethodPost && q.Has("uploadId"):
		var whole []byte
		all := f.parts[q.Get("uploadId")]
		for n := 1; n <= len(all); n++ {
			whole = append(whole, all[n]...)
		}
		f.objects[key] = object{whole, f.metas[q.Get("uploadId")], time.Now()}
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", bucket, key, tag(whole))
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		f.aborted++
		w.WriteHeader(204)
	case r.Method == http.MethodPut:
		f.objects[key] = object{body, metadata(r.Header), time.Now()}
		w.Header().Set("ETag", tag(body))
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(204)
	default:
		o, ok := f.objects[key]
		if !ok {
			answerError(w, 404, "NoSuchKey")
			return
		}
		for k, v := range o.meta {
			w.Header()[k] = v
		}
		w.Header().Set("ETag", tag(o.data))
		http.ServeContent(w, r, "", o.at.Truncate(time.Second), strings.NewReader(string(o.data)))
	}
}

func (f *fake) list(w http.ResponseWriter, prefix, delimiter string) {
	type content struct {
		Key, LastModified, ETag string
		Size                    int
	}
	type folder struct{ Prefix string }
	var out struct {
		XMLName        xml.Name `xml:"ListBucketResult"`
		IsTruncated    bool
		Contents       []content
		CommonPrefixes []folder
	}
	var keys []string
	for k := range f.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k, prefix)
		if !ok {
			continue
		}
		if at := strings.Index(rest, delimiter); delimiter != "" && at >= 0 {
			if p := (folder{prefix + rest[:at+1]}); !slices.Contains(out.CommonPrefixes, p) {
				out.CommonPrefixes = append(out.CommonPrefixes, p)
			}
			continue
		}
		o := f.objects[k]
		out.Contents = append(out.Contents, content{k, o.at.UTC().Format("2006-01-02T15:04:05.000Z"), tag(o.data), len(o.data)})
	}
	_ = xml.NewEncoder(w).Encode(out)
}

// readBody takes the signed chunks apart that come over connections without TLS (SigV4, chunked upload).
func readBody(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	var all []byte
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		digits, sign, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(digits, 16, 32)
		if err != nil || !strings.HasPrefix(sign, "chunk-signature=") {
			return nil, fmt.Errorf("chunk %q", line)
		}
		if n == 0 {
			return all, nil
		}
		chunk := make([]byte, n+2)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return nil, err
		}
		all = append(all, chunk[:n]...)
	}
}

func metadata(h http.Header) http.Header {
	out := http.Header{}
	for k, v := range h {
		if strings.HasPrefix(k, "X-Amz-Meta-") {
			out[k] = v
		}
	}
	return out
}

func tag(data []byte) string {
	sum := md5.Sum(data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func answerError(w http.ResponseWriter, code int, name string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(code)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", name)
}
