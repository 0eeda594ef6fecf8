package config

import "testing"

// The kinds of server that make sense are taken; what does not is in TestValidate.
func TestRolesOfServers(t *testing.T) {
	const joins = "server: https://h:9345\ntoken: a\n"
	for _, c := range []struct{ name, text string }{
		{"all", ""},
		{"all, written out", "disable-etcd: false\ndisable-apiserver: false\ndisable-controller-manager: false"},
		{"control plane", joins + "disable-etcd: true"},
		{"control plane whose controllers others run", joins + "disable-etcd: true\ndisable-controller-manager: true\ndisable-scheduler: true"},
		{"etcd, beginning a cluster", "disable-apiserver: true\ndisable-controller-manager: true\ndisable-scheduler: true"},
		{"etcd, joining", joins + "disable-apiserver: true\ndisable-controller-manager: true\ndisable-scheduler: true"},
		{"all but a scheduler", "disable-scheduler: true"},
		{"a reset of etcd alone", "cluster-reset: true\ndisable-apiserver: true\ndisable-controller-manager: true\ndisable-scheduler: true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			loaded, err := load(t, map[string]string{"config.yaml": c.text})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := loaded.Resolve(Host{Name: "n", Addresses: addrs("192.0.2.1")}); err != nil {
				t.Error(err)
			}
		})
	}
}
