package trust

import (
	"errors"
	"fmt"
	"time"
)

// What can be wrong between a machine and a server. errors.Is finds them in what Validate returns.
var (
	ErrAddress        = errors.New("address of the server is not usable")
	ErrToken          = errors.New("token is not usable")
	ErrWrongToken     = errors.New("server does not take the token")
	ErrBootstrapToken = errors.New("server does not take the bootstrap token")
	ErrForbidden      = errors.New("server takes the token but not for this")
	ErrHashRequired   = errors.New("token does not name the cluster's authority")
	ErrCAHash         = errors.New("server is not the one that the token names")
	ErrCertificate    = errors.New("server answers with somebody else's certificate")
	ErrClock          = errors.New("clocks differ")
	ErrNotSupervisor  = errors.New("no supervisor of a cluster answers there")
	ErrNotReady       = errors.New("server is not ready")
	ErrUnreachable    = errors.New("server cannot be reached")
	ErrVersion        = errors.New("versions do not fit")
)

// Error is why a server is not trusted, with what to do about it.
type Error struct {
	Kind   error  // one of the errors above
	Server string // https://host:port
	Detail error  // what was seen; may be nil
	Do     string // what the operator should do; may be empty
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v", e.Server, e.Kind)
	if e.Detail != nil {
		text += ": " + e.Detail.Error()
	}
	if e.Do != "" {
		text += "; " + e.Do
	}
	return text
}

// Unwrap implements the interface of errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	if e.Detail == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Detail}
}

// Passing tells whether an error may pass without anybody's doing, so that trying again makes sense.
func Passing(err error) bool {
	for _, kind := range []error{ErrNotReady, ErrUnreachable, ErrClock, ErrBootstrapToken} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func (v *validation) fail(kind, detail error, do string) *Error {
	server := v.access.Server
	if server == "" { // not usable; it may hold a password
		server = "server"
	}
	return &Error{Kind: kind, Server: server, Detail: detail, Do: do}
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
