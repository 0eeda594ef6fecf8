package server

import (
	"context"
	"fmt"
	"path"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"keelson/node/bootstrapdata"
	"keelson/node/etcdcare"
	"keelson/node/etcdsnapshot"
	"keelson/node/etcdsnapshot/record"
	"keelson/node/etcdsnapshot/s3"
)

// extraMetadata is a ConfigMap of kube-system whose data goes along with each snapshot (k3s pkg/etcd).
const extraMetadata = "rke2-etcd-snapshot-extra-metadata"

// startSnapshots takes snapshots of etcd by schedule and on demand, and keeps objects that tell of them.
func (s *Server) startSnapshots(ctx context.Context) error {
	c, err := s.snapshotConfig(ctx)
	if err != nil {
		return err
	}
	m, err := etcdsnapshot.New(c)
	if err != nil {
		return err
	}
	if err := m.Prepare(s.settings.SnapshotDir == ""); err != nil {
		return err
	}
	s.background("snapshots", m.Run)
	s.snapshots.Store(m)
	s.tellSnapshots(m.Last)
	return s.install()
}

func (s *Server) snapshotConfig(ctx context.Context) (etcdsnapshot.Config, error) {
	rest, err := s.restConfig()
	if err != nil {
		return etcdsnapshot.Config{}, err
	}
	objects, err := dynamic.NewForConfig(rest)
	if err != nil {
		return etcdsnapshot.Config{}, fmt.Errorf("make client: %w", err)
	}
	cluster, err := s.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return etcdsnapshot.Config{}, fmt.Errorf("read the cluster's id: %w", err)
	}
	set := s.settings
	c := etcdsnapshot.Config{
		Etcd: s.etcd, Endpoint: s.etcdEndpoint(), NodeName: set.NodeName,
		Dir: s.snapshotDir(), Metadata: s.server("db", ".metadata"),
		Schedule: set.SnapshotSchedule, Prefix: set.SnapshotName, Retention: set.SnapshotRetention, Compress: set.SnapshotCompress,
		TokenHash: path.Base(bootstrapdata.Key(s.rotator.Passwords().Server)),
		Records:   record.New(objects),
		Connect:   s3.Connector(string(cluster.UID), s.secretData),
		Extra:     s.snapshotMetadata,
		Log:       s.log,
	}
	if set.DisableSnapshots {
		c.Schedule = ""
	}
	if set.S3.Enabled {
		if c.S3, err = s.objectStore(); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (s *Server) objectStore() (*etcdsnapshot.S3Config, error) {
	set := s.settings.S3
	timeout, err := time.ParseDuration(set.Timeout)
	if err != nil {
		return nil, fmt.Errorf("etcd-s3-timeout: %w", err)
	}
	return &etcdsnapshot.S3Config{
		Endpoint: set.Endpoint, EndpointCA: set.EndpointCA, SkipSSLVerify: set.SkipSSLVerify, AccessKey: set.AccessKey,
		SecretKey: set.SecretKey, SessionToken: set.SessionToken, Bucket: set.Bucket, BucketLookup: set.BucketLookup,
		Region: set.Region, Folder: set.Folder, Proxy: set.Proxy, ConfigSecret: set.ConfigSecret, Insecure: set.Insecure,
		Timeout: metav1.Duration{Duration: timeout}, Retention: set.Retention,
	}, nil
}

// secretData reads a Secret of kube-system.
func (s *Server) secretData(ctx context.Context, name string) (map[string][]byte, error) {
	secret, err := s.client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return secret.Data, nil
}

func (s *Server) snapshotMetadata(ctx context.Context) (map[string]string, error) {
	m, err := s.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, extraMetadata, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", extraMetadata, err)
	}
	return m.Data, nil
}

// careForEtcd handles alarms and defragments.
func (s *Server) careForEtcd(context.Context) error {
	care, err := etcdcare.New(etcdcare.Config{API: s.etcd, Endpoint: s.etcdEndpoint(), Log: s.log, Corrupt: func(members []string) {
		if len(members) > 0 {
			s.console(fmt.Sprintf("the data of etcd member %v is corrupt: delete its Node, and let the machine join anew", members))
		}
	}})
	if err != nil {
		return err
	}
	s.background("etcd care", care.Run)
	return nil
}
