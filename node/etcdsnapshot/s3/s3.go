// Package s3 keeps snapshots in a folder of a bucket of Amazon S3, or of what speaks its protocol: it is
// etcdsnapshot's object store (k3s pkg/etcd/s3).
//
// Files go up and down in parts read straight from the disk, so that memory does not grow with the snapshot. The
// package makes no bucket, and removes nothing but what it is told to by name.
package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"keelson/node/etcdsnapshot"
)

// RKE2's defaults, and what bounds memory: parts are streamed, two at a time.
const (
	defaultEndpoint = "s3.amazonaws.com"
	defaultRegion   = "us-east-1"
	defaultTimeout  = 5 * time.Minute
	partSize        = 64 << 20 // 10,000 parts at most: 640 GiB
	uploads         = 2
	retries         = 4
)

// User metadata of objects (k3s pkg/etcd/snapshot.go).
const (
	metaNode      = "Rke2-Node-Name"
	metaTokenHash = "Rke2-Token-Hash"
	metaCluster   = "Rke2-Cluster-Id"
)

// Store is a folder of a bucket.
type Store struct {
	client  *minio.Client
	config  etcdsnapshot.S3Config
	cluster string
	part    uint64
}

// Connect checks the configuration and that the bucket is there. cluster may be empty; it is noted with objects.
func Connect(ctx context.Context, c etcdsnapshot.S3Config, cluster string) (*Store, error) {
	if c.Endpoint == "" {
		c.Endpoint = defaultEndpoint
	}
	if c.Region == "" {
		c.Region = defaultRegion
	}
	if c.Timeout.Duration <= 0 {
		c.Timeout.Duration = defaultTimeout
	}
	if c.Bucket == "" {
		return nil, fmt.Errorf("%w: etcd-s3-bucket: no bucket is set", etcdsnapshot.ErrRequest)
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return nil, fmt.Errorf("%w: etcd-s3-access-key and etcd-s3-secret-key: set both, or none to use the machine's IAM role", etcdsnapshot.ErrRequest)
	}
	lookup, err := bucketLookup(c.BucketLookup)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(c)
	if err != nil {
		return nil, err
	}
	provider := credentials.NewIAM("")
	if c.AccessKey != "" {
		provider = credentials.NewStaticV4(c.AccessKey, c.SecretKey.Reveal(), c.SessionToken.Reveal())
	}
	client, err := minio.New(c.Endpoint, &minio.Options{
		Creds: provider, Secure: !c.Insecure, Region: c.Region, BucketLookup: lookup, Transport: transport, MaxRetries: retries,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: etcd-s3-endpoint %q: %w; give host or host:port", etcdsnapshot.ErrRequest, c.Endpoint, err)
	}
	s := &Store{client: client, config: c, cluster: cluster, part: partSize}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	exists, err := client.BucketExists(ctx, c.Bucket)
	if err != nil {
		return nil, s.explain("look at the bucket", err)
	}
	if !exists {
		return nil, fmt.Errorf("%w: bucket %s does not exist at %s: make it, or correct etcd-s3-bucket and etcd-s3-region", etcdsnapshot.ErrRequest, c.Bucket, c.Endpoint)
	}
	return s, nil
}

func bucketLookup(text string) (minio.BucketLookupType, error) {
	switch text {
	case "", "auto":
		return minio.BucketLookupAuto, nil
	case "dns":
		return minio.BucketLookupDNS, nil
	case "path":
		return minio.BucketLookupPath, nil
	default:
		return 0, fmt.Errorf("%w: etcd-s3-bucket-lookup-type %q: auto, dns and path are known", etcdsnapshot.ErrRequest, text)
	}
}

// newTransport has its own connections: they end with the operation, for there are twelve hours between two.
func newTransport(c etcdsnapshot.S3Config) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = false
	t.IdleConnTimeout = 10 * time.Second
	t.ResponseHeaderTimeout = time.Minute
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.SkipSSLVerify}
	if c.Proxy != "" {
		u, err := url.Parse(c.Proxy)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%w: etcd-s3-proxy: not a URL such as http://proxy:3128", etcdsnapshot.ErrRequest)
		}
		t.Proxy = http.ProxyURL(u)
	}
	if c.EndpointCA == "" {
		return t, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, ca := range strings.Split(c.EndpointCA, ",") {
		bundle, err := loadCA(strings.TrimSpace(ca))
		if err != nil {
			return nil, fmt.Errorf("%w: etcd-s3-endpoint-ca: %w", etcdsnapshot.ErrRequest, err)
		}
		if !pool.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("%w: etcd-s3-endpoint-ca: no certificate in PEM form in it", etcdsnapshot.ErrRequest)
		}
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

// loadCA reads a bundle: PEM, base64 of PEM, or a file's path, as RKE2 takes it.
func loadCA(text string) ([]byte, error) {
	if strings.Contains(text, "-----BEGIN") {
		return []byte(text), nil
	}
	if bundle, err := base64.StdEncoding.DecodeString(text); err == nil {
		return bundle, nil
	}
	return os.ReadFile(text)
}

// Target implements etcdsnapshot.Remote.
func (s *Store) Target() etcdsnapshot.S3Target {
	c := s.config
	return etcdsnapshot.S3Target{
		Endpoint: c.Endpoint, EndpointCA: c.EndpointCA, SkipSSLVerify: c.SkipSSLVerify, Bucket: c.Bucket,
		BucketLookup: c.BucketLookup, Region: c.Region, Prefix: c.Folder, Insecure: c.Insecure,
	}
}

// Retention implements etcdsnapshot.Remote.
func (s *Store) Retention() int { return s.config.Retention }

func (s *Store) key(name string) string {
	return strings.TrimPrefix(path.Join(s.config.Folder, name), "/")
}

func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.config.Timeout.Duration)
}

// explain says what an operator can do about the answers that are not the network's fault.
func (s *Store) explain(what string, err error) error {
	hint := ""
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchBucket:
		hint = "; make the bucket, or correct etcd-s3-bucket"
	case minio.AccessDenied:
		hint = "; the key has no right to do this in the bucket"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		hint = "; correct etcd-s3-access-key and etcd-s3-secret-key"
	case "RequestTimeTooSkewed":
		hint = "; this machine's clock is off"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		hint = fmt.Sprintf("; it took longer than etcd-s3-timeout (%s)", s.config.Timeout.Duration)
	}
	return fmt.Errorf("s3 %s/%s: %s: %w%s", s.config.Endpoint, s.config.Bucket, what, err, hint)
}
