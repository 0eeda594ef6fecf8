package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// lifetime of the certificate: a machine of a test or of an afternoon.
const lifetime = 7 * 24 * time.Hour

// Kubeconfig signs a certificate for an administrator (system:masters) and
// renders a kubeconfig with it. now is the machine's time, which a test may
// have set to something of its own.
func (b *Bootstrap) Kubeconfig(apiserver string, now time.Time) ([]byte, error) {
	cert, key, err := b.mint(now)
	if err != nil {
		return nil, fmt.Errorf("sign administrator's certificate: %w", err)
	}
	c := api.NewConfig()
	c.Clusters["keelson"] = &api.Cluster{Server: apiserver, CertificateAuthorityData: b.ServerCA}
	c.AuthInfos["admin"] = &api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts["keelson"] = &api.Context{Cluster: "keelson", AuthInfo: "admin"}
	c.CurrentContext = "keelson"
	data, err := clientcmd.Write(*c)
	if err != nil {
		return nil, fmt.Errorf("render kubeconfig: %w", err)
	}
	return data, nil
}

func (b *Bootstrap) mint(now time.Time) (certPEM, keyPEM []byte, err error) {
	ca, err := tls.X509KeyPair(b.ClientCA, b.ClientCAKey)
	if err != nil {
		return nil, nil, fmt.Errorf("client CA: %w", err)
	}
	parent, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		return nil, nil, fmt.Errorf("client CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	// The CA may be younger than an hour, and a certificate from before its CA
	// is refused by some.
	notBefore := now.Add(-time.Hour)
	if notBefore.Before(parent.NotBefore) {
		notBefore = parent.NotBefore
	}
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}},
		NotBefore:    notBefore, NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, key.Public(), ca.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}
