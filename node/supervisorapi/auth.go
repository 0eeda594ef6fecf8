package supervisorapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"

	"keelson/node/token"
)

// Groups that RKE2's routes ask for beside the roles of the password file.
const (
	groupNodes         = "system:nodes"
	groupBootstrappers = "system:bootstrappers"
)

// agents may use what an agent needs; servers may take the bootstrap data.
func agents() []string  { return []string{token.RoleAgent, groupNodes, groupBootstrappers} }
func servers() []string { return []string{token.RoleServer} }

// errCredentials are credentials that were shown and are not right.
var errCredentials = errors.New("credentials are not right")

// account is a user of the password file as it is kept in memory: no password, only its keyed digest.
type account struct {
	digest [sha256.Size]byte
	roles  []string
}

// identity is who asks. The zero value is nobody.
type identity struct {
	name     string
	groups   []string
	password token.Secret // of basic authentication
}

func (i identity) has(any []string) bool {
	return slices.ContainsFunc(i.groups, func(g string) bool { return slices.Contains(any, g) })
}

// authenticate finds out who sent r: a client certificate of the cluster, or a user of the password file. Whoever
// shows nothing is nobody; whoever shows only wrong things gets errCredentials.
func (s *Server) authenticate(r *http.Request, accounts map[string]account) (identity, error) {
	shown := r.Header.Get("Authorization") != ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		shown = true
		if who, ok := s.byCertificate(r.TLS.PeerCertificates); ok {
			return who, nil
		}
	}
	if user, password, ok := r.BasicAuth(); ok {
		if who, ok := s.byPassword(accounts, user, token.Secret(password)); ok {
			return who, nil
		}
	}
	if shown {
		return identity{}, errCredentials
	}
	return identity{}, nil
}

// byCertificate verifies the chain against the client CA. The subject names user and groups, as everywhere in
// Kubernetes.
func (s *Server) byCertificate(chain []*x509.Certificate) (identity, bool) {
	opts := x509.VerifyOptions{
		Roots:         s.clientCAs,
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
	return identity{name: chain[0].Subject.CommonName, groups: chain[0].Subject.Organization}, true
}

// byPassword compares digests in constant time. An unknown user costs the same as a known one. The digest's key
// lives in this process alone; a slow hash would let strangers keep the machine busy.
func (s *Server) byPassword(accounts map[string]account, user string, password token.Secret) (identity, bool) {
	a, known := accounts[user]
	got := s.digest(password)
	same := subtle.ConstantTimeCompare(got[:], a.digest[:]) == 1
	if !known || !same {
		return identity{}, false
	}
	return identity{name: user, groups: a.roles, password: password}, true
}

func (s *Server) digest(password token.Secret) [sha256.Size]byte {
	mac := hmac.New(sha256.New, s.hashKey[:])
	mac.Write([]byte(password.Reveal()))
	return [sha256.Size]byte(mac.Sum(nil))
}

func (s *Server) accounts(users []token.User) map[string]account {
	all := map[string]account{}
	for _, u := range users {
		all[u.Name] = account{digest: s.digest(u.Password), roles: u.Roles}
	}
	return all
}
