package supervisorapi

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keelson/node/pki"
)

// floodFor is how long TestFlood lasts. The whole scenario, a minute before a server with its etcd, is node/server's.
const floodFor = 3 * time.Second

// machine dials as the n-th machine of a network: addresses of 127.0.0.0/8 stand for machines.
func machine(net3 byte, n int) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, net3, byte(n>>8), byte(n)+1)}}
}

// retryAfter is how long a client waits that was told to come again.
const retryAfter = 100 * time.Millisecond

// join asks for what a joining agent asks for, and tries again where it is told to.
func join(client *http.Client, url, node string, request []byte) error {
	for _, step := range []struct{ method, path string }{
		{"GET", "/cacerts"}, {"GET", Prefix + "/config"}, {"GET", Prefix + "/client-ca.crt"}, {"GET", Prefix + "/server-ca.crt"},
		{"POST", Prefix + "/" + string(pki.ServingKubelet) + ".crt"}, {"POST", Prefix + "/" + string(pki.ClientKubelet) + ".crt"},
		{"POST", Prefix + "/" + string(pki.ClientKubeProxy) + ".crt"}, {"POST", Prefix + "/" + string(pki.ClientController) + ".crt"},
	} {
		for {
			req, err := http.NewRequest(step.method, url+step.path, bytes.NewReader(request))
			if err != nil {
				return err
			}
			req.SetBasicAuth("node", agentPassword)
			req.Header.Set(headerName, node)
			req.Header.Set(headerPassword, "node-password")
			req.Header.Set(headerAddress, "10.0.0.7")
			res, err := client.Do(req)
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusTooManyRequests {
				<-time.After(retryAfter) // asking without a pause would take the processor from the answers
				continue
			}
			if res.StatusCode != 200 {
				return fmt.Errorf("%s: %s", step.path, res.Status)
			}
			break
		}
	}
	return nil
}

// TestFlood is the hostile listener: 500 half-open connections and 1,000 wrong tokens a second. A valid join takes no
// more than 10 s, and memory stays bounded.
func TestFlood(t *testing.T) {
	const halfOpen, perSecond, attackers = 500, 1000, 100
	b := start(t, Limits{})
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(b.url, "https://")
	end := time.Now().Add(floodFor)
	var guesses atomic.Int64
	var fire sync.WaitGroup
	for i := range halfOpen {
		fire.Go(func() { // each is opened anew whenever the listener has had enough of it
			for time.Now().Before(end) {
				c, err := machine(2, i%attackers).Dial("tcp", address)
				if err != nil {
					continue
				}
				_ = c.SetReadDeadline(end)
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}
		})
	}
	for i := range attackers {
		fire.Go(func() {
			tr := &http.Transport{DialContext: machine(3, i).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer tr.CloseIdleConnections()
			pace := time.NewTicker(time.Second * attackers / perSecond)
			defer pace.Stop()
			for time.Now().Before(end) {
				<-pace.C
				req, _ := http.NewRequest("GET", b.url+Prefix+"/config", nil)
				req.SetBasicAuth("node", "wrong")
				if res, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Do(req); err == nil {
					res.Body.Close()
					guesses.Add(1) // those that were answered
				}
			}
		})
	}
	request := signingRequest(t)
	var slowest time.Duration
	var most uint64
	for n := 0; time.Now().Before(end); n++ {
		tr := &http.Transport{DialContext: machine(4, n).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		begin := time.Now()
		if err := join(&http.Client{Transport: tr}, b.url, fmt.Sprintf("node-%d", n), request); err != nil {
			t.Errorf("join %d: %v", n, err)
		}
		slowest = max(slowest, time.Since(begin))
		tr.CloseIdleConnections()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
	}
	fire.Wait()
	t.Logf("%.0f guesses a second, slowest join %v, heap at most %d MiB (attackers and joiners included)", float64(guesses.Load())/floodFor.Seconds(), slowest, most>>20)
	if slowest > 10*time.Second {
		t.Errorf("a valid join took %v", slowest)
	}
	if most > 256<<20 {
		t.Errorf("heap grew to %d MiB", most>>20)
	}
}
