package s3

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"keelson/node/config"
	"keelson/node/etcdsnapshot"
)

// FromSecret fills what c leaves empty from the data of the Secret that etcd-s3-config-secret names, in kube-system.
// All mistakes are told at once, without a value.
func FromSecret(c etcdsnapshot.S3Config, data map[string][]byte) (etcdsnapshot.S3Config, error) {
	var problems []error
	text := func(key string, field *string) {
		if *field == "" {
			*field = string(data["etcd-s3-"+key])
		}
	}
	secret := func(key string, field *config.Secret) {
		if *field == "" {
			*field = config.Secret(data["etcd-s3-"+key])
		}
	}
	flag := func(key string, field *bool) {
		value := string(data["etcd-s3-"+key])
		if value == "" || *field {
			return
		}
		b, err := strconv.ParseBool(value)
		if err != nil {
			problems = append(problems, fmt.Errorf("etcd-s3-%s: true or false is wanted", key))
		}
		*field = b
	}
	// A static key and the Secret's are never mixed.
	if c.AccessKey == "" && c.SecretKey == "" {
		text("access-key", &c.AccessKey)
		secret("secret-key", &c.SecretKey)
		secret("session-token", &c.SessionToken)
	}
	text("endpoint", &c.Endpoint)
	text("endpoint-ca", &c.EndpointCA)
	text("bucket", &c.Bucket)
	text("bucket-lookup-type", &c.BucketLookup)
	text("region", &c.Region)
	text("folder", &c.Folder)
	text("proxy", &c.Proxy)
	flag("insecure", &c.Insecure)
	flag("skip-ssl-verify", &c.SkipSSLVerify)
	if value := string(data["etcd-s3-timeout"]); value != "" && c.Timeout.Duration == 0 {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			problems = append(problems, errors.New("etcd-s3-timeout: a duration such as 5m is wanted"))
		}
		c.Timeout.Duration = d
	}
	if value := string(data["etcd-s3-retention"]); value != "" && c.Retention == 0 {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			problems = append(problems, errors.New("etcd-s3-retention: a number is wanted"))
		}
		c.Retention = n
	}
	if err := errors.Join(problems...); err != nil {
		return c, fmt.Errorf("%w: secret kube-system/%s: %w", etcdsnapshot.ErrRequest, c.ConfigSecret, err)
	}
	return c, nil
}

// Connector gives etcdsnapshot its Connect. secrets reads a Secret's data in kube-system; nil where there is no
// cluster to ask, as in a restore.
func Connector(cluster string, secrets func(ctx context.Context, name string) (map[string][]byte, error)) func(context.Context, etcdsnapshot.S3Config) (etcdsnapshot.Remote, error) {
	return func(ctx context.Context, c etcdsnapshot.S3Config) (etcdsnapshot.Remote, error) {
		if c.ConfigSecret != "" {
			if secrets == nil {
				return nil, fmt.Errorf("%w: etcd-s3-config-secret %s cannot be read without a cluster; set the keys of etcd-s3 themselves", etcdsnapshot.ErrRequest, c.ConfigSecret)
			}
			data, err := secrets(ctx, c.ConfigSecret)
			if err != nil {
				return nil, fmt.Errorf("etcd-s3-config-secret: read kube-system/%s: %w", c.ConfigSecret, err)
			}
			if c, err = FromSecret(c, data); err != nil {
				return nil, err
			}
		}
		store, err := Connect(ctx, c, cluster)
		if err != nil {
			return nil, err // a nil *Store would be no nil Remote
		}
		return store, nil
	}
}
