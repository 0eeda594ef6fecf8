package supervisorapi

import (
	"context"
	"errors"
	"net/http"
	"net/netip"

	"keelson/node/pki"
	"keelson/node/token"
)

// ErrCredentials is what BootstrapToken says of a token that is wrong, expired or for something else.
var ErrCredentials = errors.New("token is not right")

// Refusal is an error whose text is for who asked. Handlers return it for what the other side must mend; all other
// errors are shown as a number and logged.
type Refusal struct {
	Code    int // of HTTP
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Handlers is what the listener answers with once the server is set up. A field that is not set leaves its path
// unserved, or not ready where the table of routes says so.
type Handlers struct {
	CACerts  []byte       // server-ca.crt, served as it is
	ClientCA []byte       // PEM bundle that client certificates must chain to; empty: Config's
	Users    []token.User // rows of the password file; a name may have two, while its password rotates
	NoEtcd   bool         // no managed etcd: /db/ and server-bootstrap answer 400
	NoAPI    bool         // no kube-apiserver on this machine: what is not served here answers 503
	Static   string       // folder served at /static/

	// Ready tells whether etcd and kube-apiserver run.
	Ready func() bool
	// APIServers lists the cluster's API servers as host:port.
	APIServers func(ctx context.Context) ([]string, error)
	// Bootstrap gives the plain bootstrap data; password is the server's, just proven.
	Bootstrap func(ctx context.Context, password token.Secret) ([]byte, error)
	// Config gives the settings that servers must agree on, and agents follow: a JSON document without any secret.
	Config func(ctx context.Context) ([]byte, error)
	// Members lists etcd's members, in a form that marshals as etcd's own Member does.
	Members func(ctx context.Context) (any, error)
	// Cluster says which of its lives the cluster is in, beside the members under "keelson"; may be nil.
	Cluster func(ctx context.Context) (any, error)

	// BootstrapToken tells whom a bootstrap token stands for; ErrCredentials is nobody, another error that nobody can
	// tell now. An ErrCredentials that holds a Refusal is shown with its text: that is for who has shown the right
	// secret of a token that is no longer one.
	BootstrapToken func(ctx context.Context, id string, secret token.Secret) (name string, groups []string, err error)
	// NodePassword tells whether a machine may be node (nodepassword.Checker.Check); proven: it has shown that node's
	// certificate.
	NodePassword func(ctx context.Context, node string, password token.Secret, proven bool) error
	// NodeQuick tells whether NodePassword will answer at once (nodepassword.Checker.Quick); nil: always.
	NodeQuick func(node string, password token.Secret) bool
	// Sign issues a certificate (signing.Signer). Without NodePassword, none of the kubelet's is issued.
	Sign func(kind pki.NodeCertificate, node string, addresses []netip.Addr, request []byte) ([]byte, error)

	// Connect takes the websocket of a node that has proven its name (tunnel.Server.ServeNode).
	Connect func(w http.ResponseWriter, r *http.Request, node string)
	// Egress takes CONNECT of system:masters (tunnel.Server.Egress).
	Egress http.Handler
	// Snapshot takes /db/snapshot of servers (etcdsnapshot.Manager.Handler).
	Snapshot http.Handler

	// Metrics takes /metrics, and Profiles /debug/pprof/ and what is below; they say themselves who may
	// (telemetry.Telemetry). Nil: 404.
	Metrics, Profiles http.Handler

	// Registry takes /v2/ of nodes (mirror.Mirror): the embedded registry. Nil: 404, and /v1-rke2/p2p too.
	Registry http.Handler

	// RotateToken changes the server token; empty lets it make one.
	RotateToken func(ctx context.Context, next token.Secret) error
	// FinishRotation has the token before the last rotation honoured no more; shown is the token of who asks.
	FinishRotation func(ctx context.Context, shown token.Secret) error
	// RotateCA takes a new set of authorities, the JSON of bootstrap data.
	RotateCA func(ctx context.Context, data []byte, force bool) error
	// EncryptStatus and EncryptConfig show and change the encryption of Secrets, in RKE2's JSON.
	EncryptStatus func(ctx context.Context) (any, error)
	EncryptConfig func(ctx context.Context, request []byte) error
}
