package reencryption

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson/node/encryption"
)

// Limits of the rewriting (spec 8.3; k3s pkg/secretsencrypt).
const (
	QPS   = 200 // of who asks kube-apiserver
	Burst = 200

	pageSize = 20 // Secrets, which may be a megabyte each
	workers  = 8  // at once: a write waits for disks most of its time
	tellEach = 50
	passes   = 3
	named    = 5 // Secrets named in an error
)

// RawPrefix begins the keys of Secrets in etcd.
const RawPrefix = "/registry/secrets/"

// rewrite has kube-apiserver write every Secret anew, until etcd shows none that was written otherwise.
func (m *Manager) rewrite(ctx context.Context, c encryption.Configuration) error {
	for range passes {
		m.tell(func(p *Progress) { p.Done = 0 })
		n, err := m.touchAll(ctx)
		if err != nil {
			return err
		}
		seen, stale, err := m.look(ctx, c.Prefix())
		if err != nil {
			return err
		}
		if n > 0 && seen == 0 {
			return fmt.Errorf("kube-apiserver has written %d Secrets anew and etcd shows none below %s, so that nobody can tell whether all were; no key is dropped", n, RawPrefix)
		}
		if len(stale) == 0 {
			m.Log.Info("Secrets written anew", "secrets", n)
			return nil
		}
		m.Log.Warn("Secrets are not written anew yet", "secrets", brief(stale))
	}
	return errors.New("write Secrets anew: they are written with another key again and again; is a server of the cluster cut off? No key is dropped")
}

// touchAll writes every Secret of the cluster without changing it, and counts them. A patch that changes nothing makes
// kube-apiserver write what is encrypted with another key than the first (k8s.io/apiserver, etcd3 store: a stale value
// is written though it is the same). The server resolves conflicts, and no Secret leaves it.
func (m *Manager) touchAll(ctx context.Context) (int, error) {
	secrets := m.Secrets.Resource(corev1.SchemeGroupVersion.WithResource("secrets"))
	var mu sync.Mutex // guards done and failed
	done, failed := 0, []string{}
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := secrets.List(ctx, options)
		if again, ok := continued(err); ok {
			// Compaction has overtaken the pages. The rest is listed as of now: what has changed since is written with the
			// first key anyway.
			options.Continue = again
			continue
		}
		if err != nil {
			return done, fmt.Errorf("list Secrets: %w", err)
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(workers)
		for _, s := range page.Items {
			group.Go(func() error {
				_, err := secrets.Namespace(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
				if ctx.Err() != nil {
					return ctx.Err()
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil && !apierrors.IsNotFound(err) {
					failed = append(failed, fmt.Sprintf("%s/%s: %v", s.Namespace, s.Name, err))
					return nil
				}
				if done++; done%tellEach == 0 {
					m.Log.Info("writing Secrets anew", "done", done)
				}
				m.tell(func(p *Progress) { p.Done = done })
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return done, fmt.Errorf("write Secrets anew: %w", err)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	if len(failed) > 0 {
		return done, fmt.Errorf("%d Secrets cannot be written anew: %s; no key is dropped", len(failed), brief(failed))
	}
	return done, nil
}

// continued gives how to go on with pages whose revision is gone.
func continued(err error) (string, bool) {
	var status apierrors.APIStatus
	if err == nil || !apierrors.IsResourceExpired(err) || !errors.As(err, &status) {
		return "", false
	}
	again := status.Status().ListMeta.Continue
	return again, again != ""
}

// look counts the Secrets in etcd, and names those that do not begin with prefix; "" is plain.
func (m *Manager) look(ctx context.Context, prefix string) (seen int, stale []string, err error) {
	err = m.Raw(ctx, func(key string, value []byte) {
		seen++
		ok := !bytes.HasPrefix(value, []byte("k8s:enc:"))
		if prefix != "" {
			ok = bytes.HasPrefix(value, []byte(prefix))
		}
		if !ok {
			stale = append(stale, strings.TrimPrefix(key, RawPrefix))
		}
	})
	if err != nil {
		return 0, nil, fmt.Errorf("look at Secrets in etcd: %w", err)
	}
	return seen, stale, nil
}

func brief(all []string) string {
	if len(all) <= named {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:named], ", "), len(all)-named)
}

// RawSecrets goes through etcd's Secrets page by page: Config.Raw of a real etcd.
func RawSecrets(kv clientv3.KV) func(context.Context, func(string, []byte)) error {
	return func(ctx context.Context, each func(string, []byte)) error {
		end := clientv3.GetPrefixRangeEnd(RawPrefix)
		for from := RawPrefix; ; {
			page, err := kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize))
			if err != nil {
				return err
			}
			for _, p := range page.Kvs {
				each(string(p.Key), p.Value)
				from = string(p.Key) + "\x00"
			}
			if !page.More {
				return nil
			}
		}
	}
}
