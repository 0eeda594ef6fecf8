// Package telemetry is what the supervisor tells of itself: its metrics, and profiles of its program, for those whom
// Kubernetes lets see them.
//
// Who asks shows a client certificate of the cluster or a token of it, and needs the right to "get" the path: RKE2 asks
// for that right for metrics alone, which would let every Pod profile its servers. It decides nothing by itself and
// changes nothing. node/server makes one when kube-apiserver serves; node/supervisorapi serves its handlers.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/metrics/legacyregistry"
)

// What is remembered of answers, and how long one may take (kubelet's own settings for the same, in short).
const (
	allowedFor = time.Minute
	deniedFor  = 10 * time.Second
	askWithin  = 10 * time.Second
)

// Config is what New needs.
type Config struct {
	Client   kubernetes.Interface
	ClientCA string // file with the authorities of client certificates
	DataDir  string // whose certificates are told of
	Log      *slog.Logger
}

// Telemetry is the two handlers and what they ask.
type Telemetry struct {
	cfg       Config
	authority *dynamiccertificates.DynamicFileCAContent
	who       authenticator.Request
	may       authorizer.Authorizer
	metrics   http.Handler
}

// New reads the authorities; kube-apiserver is asked with each request only.
func New(cfg Config) (*Telemetry, error) {
	if cfg.Client == nil || cfg.Log == nil {
		return nil, errors.New("telemetry: a client and a log are needed")
	}
	t := &Telemetry{cfg: cfg}
	var err error
	if t.authority, err = dynamiccertificates.NewDynamicCAContentFromFile("client-ca", cfg.ClientCA); err != nil {
		return nil, fmt.Errorf("telemetry: read client authorities: %w", err)
	}
	retry := options.DefaultAuthWebhookRetryBackoff()
	t.who, _, err = authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: cfg.Client.AuthenticationV1(), TokenAccessReviewTimeout: askWithin, WebhookRetryBackoff: retry,
		CacheTTL: deniedFor, ClientCertificateCAContentProvider: t.authority,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	t.may, err = authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: cfg.Client.AuthorizationV1(), AllowCacheTTL: allowedFor, DenyCacheTTL: deniedFor, WebhookRetryBackoff: retry,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	own := prometheus.NewRegistry()
	if err := own.Register(certificates{dataDir: cfg.DataDir, log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	t.metrics = promhttp.HandlerFor(prometheus.Gatherers{legacyregistry.DefaultGatherer, own}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return t, nil
}

// Run follows changes of the authorities until ctx is done.
func (t *Telemetry) Run(ctx context.Context) error {
	t.authority.Run(ctx, 1)
	return nil
}

// Metrics answers /metrics in Prometheus's formats.
func (t *Telemetry) Metrics() http.Handler { return t.guard(t.metrics) }

// Profiles answers /debug/pprof/ and what is below it. A profile ends before the listener's limit of an answer: ask for
// ?seconds=20 or so.
func (t *Telemetry) Profiles() http.Handler {
	return t.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, "/debug/pprof/") {
		case "cmdline":
			pprof.Cmdline(w, r)
		case "profile":
			pprof.Profile(w, r)
		case "symbol":
			pprof.Symbol(w, r)
		case "trace":
			pprof.Trace(w, r)
		default:
			pprof.Index(w, r)
		}
	}))
}

// guard lets those through who may get the path.
func (t *Telemetry) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok, err := t.who.AuthenticateRequest(r)
		if err != nil || !ok {
			t.cfg.Log.Info("not let in", "path", r.URL.Path, "error", err)
			http.Error(w, "not authorized", http.StatusUnauthorized)
			return
		}
		decision, reason, err := t.may.Authorize(r.Context(), authorizer.AttributesRecord{User: who.User, Verb: "get", Path: r.URL.Path})
		switch {
		case err != nil && decision != authorizer.DecisionAllow:
			t.cfg.Log.Warn("rights cannot be looked up", "path", r.URL.Path, "user", who.User.GetName(), "error", err)
			http.Error(w, "rights cannot be looked up now", http.StatusServiceUnavailable)
		case decision != authorizer.DecisionAllow:
			t.cfg.Log.Info("not let in", "path", r.URL.Path, "user", who.User.GetName(), "reason", reason)
			http.Error(w, "forbidden", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
