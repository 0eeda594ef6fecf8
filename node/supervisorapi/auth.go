package supervisorapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"keelson/node/signing"
	"keelson/node/token"
)

// Groups that RKE2's routes ask for beside the roles of the password file.
const (
	groupNodes         = "system:nodes"
	groupBootstrappers = "system:bootstrappers"
	groupMasters       = "system:masters"
)

// agents may use what an agent needs; servers may take the bootstrap data.
func agents() []string  { return []string{token.RoleAgent, groupNodes, groupBootstrappers} }
func servers() []string { return []string{token.RoleServer} }

// joiners may use what an agent and a joining server both need: a server has proven more than an agent.
func joiners() []string { return append(agents(), token.RoleServer) }

// errCredentials are credentials that were shown and are not right.
var errCredentials = errors.New("credentials are not right")

// errBusy is more bootstrap tokens at a time than are looked at.
var errBusy = errors.New("too many requests")

// account is a user of the password file as it is kept in memory: no password, only its keyed digest.
type account struct {
	digest [sha256.Size]byte
	roles  []string
}

// mostPasswords is how many passwords of one user are looked at: the present and, while one rotates, the one before.
const mostPasswords = 2

// identity is who asks. The zero value is nobody.
type identity struct {
	name     string
	groups   []string
	password token.Secret // of basic authentication
	node     string       // the node that a certificate was issued to
	proven   bool         // by a certificate
}

func (i identity) has(any []string) bool {
	return slices.ContainsFunc(i.groups, func(g string) bool { return slices.Contains(any, g) })
}

// byCredential finds out who sent r by what can be guessed: a user of the password file, or a bootstrap token. Whoever
// shows nothing is nobody; whoever shows only wrong things gets errCredentials; another error is that nobody can tell now.
func (s *Server) byCredential(r *http.Request, in *installed) (identity, error) {
	if user, password, ok := r.BasicAuth(); ok {
		if who, ok := s.byPassword(in.accounts, user, token.Secret(password)); ok {
			return who, nil
		}
	}
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && in.bootstrapToken != nil {
		if id, secret, err := token.ParseBootstrap(token.Secret(bearer)); err == nil {
			return s.byBootstrapToken(r, in, id, secret)
		}
	}
	if r.Header.Get("Authorization") != "" || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return identity{}, errCredentials
	}
	return identity{}, nil
}

// byBootstrapToken asks the hook, whose answer may take kube-apiserver: few at a time.
func (s *Server) byBootstrapToken(r *http.Request, in *installed, id string, secret token.Secret) (identity, error) {
	if !s.gates.tokens.enter() {
		return identity{}, errBusy
	}
	defer s.gates.tokens.leave()
	name, groups, err := in.bootstrapToken(r.Context(), id, secret)
	switch {
	case errors.Is(err, ErrCredentials):
		var told *Refusal
		if errors.As(err, &told) {
			return identity{}, fmt.Errorf("%w: %w", errCredentials, told)
		}
		return identity{}, errCredentials
	case err != nil:
		return identity{}, fmt.Errorf("bootstrap token: %w", err)
	}
	// A bootstrap token makes nobody a node, a server or a master, whatever its Secret says.
	groups = slices.DeleteFunc(slices.Clone(groups), func(g string) bool {
		return g != groupBootstrappers && !strings.HasPrefix(g, groupBootstrappers+":")
	})
	return identity{name: name, groups: groups}, nil
}

// byCertificate verifies the chain against the client CA. The subject names user and groups, as everywhere in
// Kubernetes.
func (s *Server) byCertificate(r *http.Request, in *installed) (identity, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return identity{}, false
	}
	chain := r.TLS.PeerCertificates
	opts := x509.VerifyOptions{
		Roots:         in.clientCAs,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   s.config.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return identity{}, false
	}
	who := identity{name: chain[0].Subject.CommonName, groups: chain[0].Subject.Organization, proven: true}
	// Roles of the password file are no certificate's.
	who.groups = slices.DeleteFunc(slices.Clone(who.groups), func(g string) bool { return g == token.RoleAgent || g == token.RoleServer })
	if slices.Contains(who.groups, groupNodes) {
		who.node, _ = strings.CutPrefix(who.name, signing.NodePrefix)
	}
	return who, true
}

// byPassword compares digests in constant time. An unknown user costs the same as a known one. The digest's key
// lives in this process alone; a slow hash would let strangers keep the machine busy.
func (s *Server) byPassword(accounts map[string][]account, user string, password token.Secret) (identity, bool) {
	var all [mostPasswords]account
	known := copy(all[:], accounts[user])
	got := s.digest(password)
	var found identity
	right := false
	for i, a := range all {
		if subtle.ConstantTimeCompare(got[:], a.digest[:]) == 1 && i < known {
			found, right = identity{name: user, groups: a.roles, password: password}, true
		}
	}
	return found, right
}

func (s *Server) digest(password token.Secret) [sha256.Size]byte {
	mac := hmac.New(sha256.New, s.hashKey[:])
	mac.Write([]byte(password.Reveal()))
	return [sha256.Size]byte(mac.Sum(nil))
}

// accounts takes the users over. One name may stand there twice, with the password of before and after a rotation.
func (s *Server) accounts(users []token.User) map[string][]account {
	all := map[string][]account{}
	for _, u := range users {
		all[u.Name] = append(all[u.Name], account{digest: s.digest(u.Password), roles: u.Roles})
	}
	return all
}
