package agent

import (
	"fmt"
	"io"
	"net/http"

	"keelson/node/mirror"
)

// apiServer is a kube-apiserver that knows its version and whether it is ready.
func (c *cluster) apiServer(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/readyz":
		io.WriteString(w, "ok")
	case "/version":
		fmt.Fprintf(w, `{"gitVersion":%q}`, c.version)
	case "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices":
		if r.URL.Query().Has("watch") {
			c.hold(w, r)
			return
		}
		io.WriteString(w, `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"kubernetes","namespace":"default"},"addressType":"IPv4"`)
		fmt.Fprintf(w, `,"ports":[{"name":"https","port":%s}],"endpoints":[{"addresses":[%q]}]}]}`, c.apiPort, c.servers[len(c.servers)-1].address)
	case "/api/v1/nodes":
		if r.URL.Query().Has("watch") {
			c.hold(w, r)
			return
		}
		got, want := r.URL.Query().Get("fieldSelector"), "metadata.name=w-1"
		if r.URL.Query().Get("labelSelector") == mirror.Label+"=true" {
			if got := r.TLS.PeerCertificates[0].Subject.CommonName; got != "system:rke2-controller" {
				c.t.Errorf("all nodes asked for by %s, which may not", got)
			}
			io.WriteString(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
			return
		}
		if got != want {
			c.t.Errorf("nodes asked for with %q, want %q: kubelets may see their own alone", got, want)
		}
		io.WriteString(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"w-1"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}]}`)
	case "/api/v1/nodes/w-1", "/api/v1/nodes/w-1/status":
		if r.Method == http.MethodGet {
			fmt.Fprintf(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"w-1"},"status":{"addresses":[{"type":"InternalIP","address":%q}]}}`, c.address)
			return
		}
		c.patch, _ = io.ReadAll(r.Body)
		c.patcher = r.TLS.PeerCertificates[0].Subject.CommonName
		io.WriteString(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"w-1"}}`)
	case "/api/v1/namespaces/default/events":
		body, _ := io.ReadAll(r.Body)
		c.events = append(c.events, r.TLS.PeerCertificates[0].Subject.CommonName+": "+string(body))
		_, _ = w.Write(body)
	default:
		refuse(w, http.StatusNotFound, "not found")
	}
}

// hold answers a watch in which nothing happens. A client that wants the list by it is told to ask for the list.
func (c *cluster) hold(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("sendInitialEvents") {
		w.WriteHeader(http.StatusUnprocessableEntity)
		io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		return
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	c.mu.Unlock()
	<-r.Context().Done()
	c.mu.Lock()
}
