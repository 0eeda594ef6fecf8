package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// newClient makes the client that asks peers. It follows no redirection and keeps no secrets: a peer learns what is
// asked for, and who asks by a certificate.
func newClient(c Config) *http.Client {
	dialer := &net.Dialer{Timeout: c.Limits.Search}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				settings, err := c.TLS()
				if err != nil {
					return nil, err
				}
				return (&tls.Dialer{NetDialer: dialer, Config: settings}).DialContext(ctx, network, address)
			},
			DisableCompression:  true,
			MaxIdleConnsPerHost: 2,
			MaxIdleConns:        64,
			// Below the listener's own, so that a connection is not used in the moment in which it ends.
			IdleConnTimeout: 30 * time.Second,
		},
	}
}

// ask puts a question to one peer. An answer other than yes is an error.
func (m *Mirror) ask(ctx context.Context, method, peer string, q question, header http.Header) (*http.Response, error) {
	u := url.URL{Scheme: "https", Host: peer, Path: q.path(), RawQuery: url.Values{"ns": {q.registry}}.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Accept", "Range"} {
		if values := header.Values(name); len(values) > 0 {
			r.Header[name] = values
		}
	}
	r.Header.Set(HeaderPeer, "true")
	answer, err := m.client.Do(r)
	if err != nil {
		return nil, err
	}
	if err := judge(answer, q); err != nil {
		_ = answer.Body.Close()
		return nil, err
	}
	return answer, nil
}

// errNo is a peer that does not have what it was asked for.
var errNo = errors.New("the peer does not have it")

// judge holds the head of an answer against the question.
func judge(answer *http.Response, q question) error {
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		if answer.Request.Header.Get("Range") == "" {
			return fmt.Errorf("answered %s unasked", answer.Status)
		}
	case http.StatusNotFound:
		return errNo
	default:
		return fmt.Errorf("answered %s", answer.Status)
	}
	told := digest.Digest(answer.Header.Get("Docker-Content-Digest"))
	if q.tag != "" {
		if err := told.Validate(); err != nil {
			return fmt.Errorf("digest of a tag: %w", err)
		}
	} else if told != "" && told != q.digest {
		return errors.New("told another digest than was asked for")
	}
	if answer.ContentLength < 0 || q.manifest && answer.ContentLength > mostManifest {
		return errors.New("told no size, or one that cannot be")
	}
	return nil
}

// find asks peers, many at a time, who has a thing, and returns as soon as one does; "" is that nobody does, or not in
// time.
func (m *Mirror) find(ctx context.Context, q question, header http.Header, not []string) (peer string, head *http.Response) {
	ctx, cancel := context.WithTimeout(ctx, m.config.Limits.Search)
	defer cancel()
	candidates := slices.DeleteFunc(slices.Clone(m.config.Peers()), func(p string) bool { return slices.Contains(not, p) || m.memory.isBanned(p) })
	rand.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	if known := m.memory.holder(q); slices.Contains(candidates, known) {
		if head := m.has(ctx, known, q, header); head != nil {
			return known, head
		}
		candidates = slices.DeleteFunc(candidates, func(p string) bool { return p == known })
	}
	type found struct {
		peer string
		head *http.Response
	}
	turns, answers := make(chan string, len(candidates)), make(chan found, len(candidates))
	for _, p := range candidates {
		turns <- p
	}
	close(turns)
	var asking sync.WaitGroup
	for range min(m.config.Limits.Abreast, len(candidates)) {
		asking.Go(func() {
			for p := range turns {
				if ctx.Err() != nil {
					return
				}
				head, err := m.ask(ctx, http.MethodHead, p, q, http.Header{"Accept": header.Values("Accept")})
				if err == nil {
					_ = head.Body.Close() // of HEAD: empty
					answers <- found{p, head}
				} else if !errors.Is(err, errNo) && ctx.Err() == nil {
					m.config.Log.Debug("mirror: ask peer", "peer", p, "error", err)
				}
			}
		})
	}
	go func() { asking.Wait(); close(answers) }()
	select {
	case f := <-answers: // closed when all have said no
		if f.peer != "" {
			m.memory.remember(q, f.peer)
		}
		return f.peer, f.head
	case <-ctx.Done():
		return "", nil
	}
}

// has asks the peer that had the last thing of the same repository, which is the only question in most cases.
func (m *Mirror) has(ctx context.Context, peer string, q question, header http.Header) *http.Response {
	ctx, cancel := context.WithTimeout(ctx, m.config.Limits.Search/2)
	defer cancel()
	head, err := m.ask(ctx, http.MethodHead, peer, q, http.Header{"Accept": header.Values("Accept")})
	if err != nil {
		return nil
	}
	_ = head.Body.Close() // of HEAD: empty
	return head
}

// memory is who had what, and who cannot be believed. Both are bounded.
type memory struct {
	most int
	ban  time.Duration

	mu      sync.Mutex // guards what follows
	holders map[string]string
	banned  map[string]time.Time // until when
}

// Layers of an image are where its manifest was, so a repository is what is remembered.
func key(q question) string { return q.registry + "/" + q.repository }

func (m *memory) holder(q question) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holders[key(q)]
}

func (m *memory) remember(q question, peer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.holders[key(q)]; !known && len(m.holders) >= m.most {
		for any := range m.holders { // it costs a search
			delete(m.holders, any)
			break
		}
	}
	m.holders[key(q)] = peer
}

func (m *memory) distrust(peer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for p, until := range m.banned {
		if now.After(until) {
			delete(m.banned, p)
		}
	}
	m.banned[peer] = now.Add(m.ban)
}

func (m *memory) isBanned(peer string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.banned[peer])
}
