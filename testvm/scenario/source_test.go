package scenario

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"keelson/testvm/cidata"
	"keelson/testvm/machine"
	"keelson/testvm/qemu"
)

// wireServer is Azure's, which hears how machines fare.
type wireServer struct{ reports chan string }

func (s *wireServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("X-Ms-Version") != "2012-11-30":
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodPost && r.URL.RawQuery == "comp=health":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.reports <- string(body)
	case r.URL.RawQuery == "comp=goalstate":
		io.WriteString(w, `<GoalState><Incarnation>1</Incarnation><Container><ContainerId>c</ContainerId><RoleInstanceList>`+
			`<RoleInstance><InstanceId>i</InstanceId></RoleInstance></RoleInstanceList></Container></GoalState>`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// reported waits for a report and checks what is in it.
func (s *wireServer) reported(t *testing.T, pattern string) {
	t.Helper()
	select {
	case report := <-s.reports:
		if !regexp.MustCompile(pattern).MatchString(report) {
			t.Errorf("got the report %s, want %s", report, pattern)
		}
	case <-within(t, bootLimit).Done():
		t.Fatalf("no report came; want %s", pattern)
	}
}

// Azure is told why user-data is refused, and once it is corrected that the
// machine is ready.
func TestScenarioAzureIsTold(t *testing.T) {
	needVM(t)
	service := &wireServer{reports: make(chan string, 16)}
	serveLoopback(t, service)
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Seed = cidata.Volume{UserData: []byte("#cloud-config\nrke2:\n  rol: <server>\n")}
		c.SMBIOS = []string{"type=3,asset=7783-7084-3265-9085-8269-3286-77"}
		c.UserNet = "net=168.63.129.0/24,host=168.63.129.16,dns=168.63.129.3,dhcpstart=168.63.129.15"
	})
	start(t, m)
	service.reported(t, `<State>NotReady</State><Details><SubStatus>ProvisioningFailed</SubStatus><Description>.*line 3: rke2\.rol: is not a known key`)
	mark := m.Console().Mark()
	if err := m.Reseed(cidata.Volume{UserData: []byte("#cloud-config\nrke2: {role: server}\n")}); err != nil {
		t.Fatal(err)
	}
	if err := m.Announce(within(t, changeLimit)); err != nil {
		t.Fatal(err)
	}
	says(t, m, mark, `keelson: boot: user-data: ok`)
	service.reported(t, `<State>Ready</State></Health>`)
}

// serveLoopback serves on port 80 of the host's loopback, which QEMU's user
// networking shows to the guest under the address of the host in its network.
func serveLoopback(t *testing.T, h http.Handler) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		t.Skipf("SKIPPED: needs port 80 of the loopback: %v", err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
}

// A machine that SMBIOS calls VMware's reads the hypervisor's port. QEMU answers
// there and opens no channel: PID 1 says so, and goes on with the volume.
func TestScenarioVMwareWithoutChannel(t *testing.T) {
	needVM(t)
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.SMBIOS = []string{"type=1,manufacturer=VMware,product=VMware7"}
	})
	start(t, m)
	says(t, m, m.Mark(), `keelson: user-data: VMware guestinfo: the hypervisor (opens no channel|does not answer)`)
	says(t, m, m.Mark(), `keelson: boot: user-data: ok`)
}

// authority makes a server's certificate for an address that is its own authority.
func authority(t *testing.T, address string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "seed"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// The kernel's command line names an https address: without the server's
// authority it is not believed, with ca_certs on the volume it is.
func TestScenarioSeedByHTTPS(t *testing.T) {
	needVM(t)
	cert, ca := authority(t, qemu.HostInGuest)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/seed/user-data" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "#cloud-config\nhostname: by-https\nruncmd: [ls]\nrke2: {role: server}\n")
	})}
	go server.Serve(listener)
	defer server.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	m := newMachine(t, qemu.Direct, func(c *machine.Config) {
		c.Seed = cidata.Volume{}
		c.Parameters = []string{fmt.Sprintf("ds=nocloud;s=https://%s:%d/seed/", qemu.HostInGuest, port)}
	})
	start(t, m)
	says(t, m, m.Mark(), `keelson: user-data: .*certificate signed by unknown authority; give its authority by ca_certs.*asked again`)
	mark := m.Console().Mark()
	trust := "#cloud-config\nca_certs:\n  trusted:\n  - |\n    " + strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n    ") + "\n"
	if err := m.PowerCut(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := m.Reseed(cidata.Volume{UserData: []byte(trust)}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	says(t, m, mark, `keelson: user-data: NoCloud at https://.*/seed/: user-data: line 3: runcmd: is not supported`)
	says(t, m, mark, `keelson: boot: user-data: ok`)
}
