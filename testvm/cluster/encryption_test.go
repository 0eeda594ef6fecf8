package cluster

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A key of Secrets is rotated while two servers run: each serves every Secret before and after, none stays under the
// old key, and no server keeps that.
func TestSecretsEncryption(t *testing.T) {
	c := newCluster(t)
	first, second := c.add("server-1", "server", 1, nil), c.add("server-2", "server", 2, joins(1))
	c.start(first, second)
	client := c.client(first)
	c.whole(client)
	const secrets = 120
	for i := range secrets {
		name := fmt.Sprintf("kept-%d", i)
		_, err := client.CoreV1().Secrets("default").Create(within(t, changeLimit), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"name": name},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(on *member, command ...string) string {
		t.Helper()
		output, err := client.RunOnNode(within(t, changeLimit), workloadImage, on.name, command...)
		if err != nil {
			t.Fatalf("%v: %v: %s", command, err, output)
		}
		return output
	}
	t.Logf("rotate-keys:\n%s", run(first, "/usr/bin/node", "secrets-encrypt", "rotate-keys"))

	for _, s := range c.servers() {
		status := run(s, "/usr/bin/node", "secrets-encrypt", "status", "-o", "json")
		var told struct {
			Stage, ActiveKey string
			HashMatch        bool
			InactiveKeys     []string
		}
		if err := json.Unmarshal([]byte(status), &told); err != nil {
			t.Fatalf("%s: %v: %s", s.name, err, status)
		}
		_, key, _ := strings.Cut(told.ActiveKey, " ")
		if told.Stage != "reencrypt_finished" || !told.HashMatch || len(told.InactiveKeys) != 0 || !strings.HasPrefix(key, "aescbckey-2") {
			t.Errorf("%s: got %s", s.name, status)
		}
		here := c.client(s)
		for i := range secrets {
			name := fmt.Sprintf("kept-%d", i)
			got, err := here.CoreV1().Secrets("default").Get(within(t, changeLimit), name, metav1.GetOptions{})
			if err != nil || string(got.Data["name"]) != name {
				t.Fatalf("%s: Secret %s: %v, %v", s.name, name, got, err)
			}
		}
		var etcd struct{ KVs []struct{ Key, Value string } }
		raw := run(s, "/usr/bin/etcdctl", "--endpoints=https://127.0.0.1:2379", "--cacert=/var/lib/rancher/rke2/server/tls/etcd/server-ca.crt",
			"--cert=/var/lib/rancher/rke2/server/tls/etcd/client.crt", "--key=/var/lib/rancher/rke2/server/tls/etcd/client.key",
			"get", "--prefix", "/registry/secrets/", "-w", "json")
		if err := json.Unmarshal([]byte(raw), &etcd); err != nil || len(etcd.KVs) < secrets {
			t.Fatalf("%s: %d Secrets in etcd, %v", s.name, len(etcd.KVs), err)
		}
		for _, kv := range etcd.KVs {
			value, err := base64.StdEncoding.DecodeString(kv.Value)
			if err != nil || !strings.HasPrefix(string(value), "k8s:enc:aescbc:v1:"+key+":") {
				t.Errorf("%s: a Secret in etcd is not under %s", s.name, key)
			}
		}
	}
}
