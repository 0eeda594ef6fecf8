package nodepassword

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"keelson/node/token"
)

// maxProven is how many nodes' passwords are remembered as proven: more than one supervisor has agents.
const maxProven = 4096

// proven remembers, in memory alone, which password has fitted which Secret, so that a node that asks for several
// certificates costs one slow hash and not one for each. It keeps no password: a digest, under a key that lives and
// ends with the process, over the password and over what it was held against. A Secret that is made anew, or says
// something else, is therefore another one, on whatever server it was changed. It is bounded, and who has not asked
// for longest goes first.
type proven struct {
	key [32]byte

	mu     sync.Mutex // guards what follows
	most   int
	byNode map[string]*list.Element
	recent *list.List // of remembered, the one asked for last in front
}

type remembered struct {
	node   string
	digest [sha256.Size]byte // of password and Secret
	alone  [sha256.Size]byte // of the password
}

func newProven(most int) *proven {
	p := &proven{most: most, byNode: map[string]*list.Element{}, recent: list.New()}
	_, _ = rand.Read(p.key[:]) // never fails (crypto/rand)
	return p
}

// digest binds parts together, each with its length before it, so that none can run into the next.
func (p *proven) digest(parts ...string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, p.key[:])
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write([]byte(part))
	}
	return [sha256.Size]byte(mac.Sum(nil))
}

// against is the digest of a password and of the Secret that it is held against. The Secret's resource version is not
// in it: it changes with an owner reference too, the hash only with the password.
func (p *proven) against(secret *corev1.Secret, password token.Secret) [sha256.Size]byte {
	return p.digest("secret", string(secret.UID), string(secret.Data[hashKey]), password.Reveal())
}

// has tells whether password has fitted secret before.
func (p *proven) has(node string, secret *corev1.Secret, password token.Secret) bool {
	now := p.against(secret, password)
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known := p.byNode[strings.ToLower(node)]
	if !known {
		return false
	}
	before := e.Value.(remembered).digest
	if !hmac.Equal(before[:], now[:]) {
		return false
	}
	p.recent.MoveToFront(e)
	return true
}

// fitted tells whether password has fitted the node's Secret when it was last asked, whatever the Secret is now.
func (p *proven) fitted(node string, password token.Secret) bool {
	now := p.digest("alone", password.Reveal())
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known := p.byNode[strings.ToLower(node)]
	if !known {
		return false
	}
	before := e.Value.(remembered).alone
	return hmac.Equal(before[:], now[:])
}

// keep remembers that password fits secret.
func (p *proven) keep(node string, secret *corev1.Secret, password token.Secret) {
	now := remembered{strings.ToLower(node), p.against(secret, password), p.digest("alone", password.Reveal())}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, known := p.byNode[now.node]; known {
		e.Value = now
		p.recent.MoveToFront(e)
		return
	}
	if p.recent.Len() >= p.most {
		oldest := p.recent.Remove(p.recent.Back()).(remembered)
		delete(p.byNode, oldest.node)
	}
	p.byNode[now.node] = p.recent.PushFront(now)
}

func (p *proven) forget(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, known := p.byNode[strings.ToLower(node)]; known {
		p.recent.Remove(e)
		delete(p.byNode, strings.ToLower(node))
	}
}
