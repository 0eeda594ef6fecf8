package loadbalancer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// Serving makes a probe that asks for a path over HTTPS. An answer that the server works, but not for us, is one, too:
// RKE2's kube-apiservers answer no strangers. A kube-apiserver that lost its etcd answers 500. The authority is read
// for each connection, because it changes while nodes run; before there is one nothing is known.
func Serving(caFile, path string) func(context.Context, string) error {
	client := &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ca, err := os.ReadFile(caFile)
			if err != nil {
				return nil, ErrUnknown
			}
			c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
			c.RootCAs.AppendCertsFromPEM(ca)
			return (&tls.Dialer{Config: c}).DialContext(ctx, network, address)
		},
		IdleConnTimeout: 30 * time.Second,
	}}
	return func(ctx context.Context, server string) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server+path, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		_ = answer.Body.Close()
		if answer.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("%s answers %s", server, answer.Status)
		}
		return nil
	}
}
