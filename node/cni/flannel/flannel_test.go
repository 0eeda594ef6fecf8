package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const subnetEnv = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

func TestParseSubnet(t *testing.T) {
	cases := []struct{ name, data, wantErr string }{
		{"usual", subnetEnv, ""},
		{"two families", subnetEnv + "FLANNEL_IPV6_NETWORK=fd00:42::/56\nFLANNEL_IPV6_SUBNET=fd00:42:0:1::1/64\n", ""},
		{"unknown key and blank line", "\nFLANNEL_NEW=x\n" + subnetEnv, ""},
		{"empty", "", "must be there"},
		{"no subnet", "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_MTU=1450\n", "must be there"},
		{"bad subnet", "FLANNEL_SUBNET=10.42.3.1\n", "line 1: FLANNEL_SUBNET"},
		{"bad size", "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_MTU=-1\n", "line 2: FLANNEL_MTU"},
		{"bad switch", "FLANNEL_IPMASQ=perhaps\n", "line 1: FLANNEL_IPMASQ"},
	}
	for _, c := range cases {
		_, err := parseSubnet([]byte(c.data))
		if (err == nil) != (c.wantErr == "") || (err != nil && !strings.Contains(err.Error(), c.wantErr)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.wantErr)
		}
	}
}

func FuzzParseSubnet(f *testing.F) {
	f.Add([]byte(subnetEnv))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := parseSubnet(data)
		if err != nil {
			return
		}
		c := &config{Name: "cbr0"}
		if _, out, err := c.delegate(env); err != nil || !json.Valid(out) {
			t.Errorf("accepted %q and rendered %s, %v", data, out, err)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"name":"cbr0","delegate":{"isDefaultGateway":true}}`))
	env, err := parseSubnet([]byte(subnetEnv))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		if _, out, err := c.delegate(env); err != nil || !json.Valid(out) {
			t.Errorf("accepted %q and rendered %s, %v", data, out, err)
		}
	})
}

// TestDelegate's expectations are those of flannel-io/cni-plugin's README.
func TestDelegate(t *testing.T) {
	cases := []struct{ name, config, want, wantErr string }{
		{"a cluster's usual one",
			`{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`,
			`{"cniVersion":"1.0.0","name":"cbr0","type":"bridge","hairpinMode":true,"isDefaultGateway":true,"isGateway":true,"ipMasq":false,"mtu":1450,
			  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.42.3.0/24"}]],"routes":[{"dst":"10.42.0.0/16"}]}}`, ""},
		{"what is said is kept",
			`{"name":"n","delegate":{"type":"ipvlan","mtu":1400,"ipMasq":true},"ipam":{"dataDir":"/x","routes":[{"dst":"192.0.2.0/24"}]},"runtimeConfig":{"portMappings":[]}}`,
			`{"name":"n","type":"ipvlan","mtu":1400,"ipMasq":true,"runtimeConfig":{"portMappings":[]},
			  "ipam":{"type":"host-local","dataDir":"/x","ranges":[[{"subnet":"10.42.3.0/24"}]],"routes":[{"dst":"192.0.2.0/24"},{"dst":"10.42.0.0/16"}]}}`, ""},
		{"no name", `{"delegate":{}}`, "", `"name" is missing`},
		{"name in delegate", `{"name":"n","delegate":{"name":"x"}}`, "", `"name" must not be in delegate`},
		{"ipam in delegate", `{"name":"n","delegate":{"ipam":{}}}`, "", `"ipam" must not be in delegate`},
		{"type that is a path", `{"name":"n","delegate":{"type":"../../bin/x"}}`, "", "must be the name of a plugin"},
		{"no JSON", `{`, "", "parse network configuration"},
	}
	env, err := parseSubnet([]byte(subnetEnv))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config, err := parseConfig([]byte(c.config))
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("got %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, data, err := config.delegate(env)
			if err != nil {
				t.Fatal(err)
			}
			var got, want map[string]any
			if err := errors.Join(json.Unmarshal(data, &got), json.Unmarshal([]byte(c.want), &want)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %s\nwant %s", data, c.want)
			}
		})
	}
}

// TestDelegateOfFamilies: pods get an address of each family, and a route to the whole network of each.
func TestDelegateOfFamilies(t *testing.T) {
	const six = "FLANNEL_IPV6_NETWORK=fd00:42::/56\nFLANNEL_IPV6_SUBNET=fd00:42:0:3::1/64\n"
	for name, c := range map[string]struct{ env, want string }{
		"both": {subnetEnv + six, `{"type":"host-local","ranges":[[{"subnet":"10.42.3.0/24"}],[{"subnet":"fd00:42:0:3::/64"}]],"routes":[{"dst":"10.42.0.0/16"},{"dst":"fd00:42::/56"}]}`},
		"IPv6": {"FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n" + six, `{"type":"host-local","ranges":[[{"subnet":"fd00:42:0:3::/64"}]],"routes":[{"dst":"fd00:42::/56"}]}`},
	} {
		env, err := parseSubnet([]byte(c.env))
		if err != nil {
			t.Fatal(err)
		}
		_, data, err := (&config{Name: "cbr0"}).delegate(env)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ IPAM any }
		var want any
		if err := errors.Join(json.Unmarshal(data, &got), json.Unmarshal([]byte(c.want), &want)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.IPAM, want) {
			t.Errorf("%s: got %v\nwant %v", name, got.IPAM, want)
		}
	}
}

func TestAwaitFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flannel", "subnet.env")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	type answer struct {
		data []byte
		err  error
	}
	got := make(chan answer)
	go func() {
		data, err := awaitFile(ctx, path)
		got <- answer{data, err}
	}()
	if err := save(path, []byte(subnetEnv)); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.err != nil || string(a.data) != subnetEnv {
		t.Errorf("got %q, %v, want the file", a.data, a.err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := awaitFile(over, path+".other"); err == nil || !strings.Contains(err.Error(), "subnet.env.other is not there") {
		t.Errorf("never written: got %v, want the file named", err)
	}
}

// TestPlugin runs the plugin as containerd does, with a delegate that writes down what it was given.
func TestPlugin(t *testing.T) {
	dir := t.TempDir()
	plugin := filepath.Join(dir, "flannel")
	if out, err := exec.Command("go", "build", "-o", plugin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	script := "#!/bin/sh\ncat > " + dir + "/$CNI_COMMAND\n" + `[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.42.3.2/24"}]}'` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "bridge"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	env := filepath.Join(dir, "subnet.env")
	if err := os.WriteFile(env, []byte(subnetEnv), 0o644); err != nil {
		t.Fatal(err)
	}
	config := `{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","subnetFile":"` + env + `","dataDir":"` + dir + `/data","delegate":{"isDefaultGateway":true}}`
	run := func(command string) (string, error) {
		cmd := exec.Command(plugin)
		cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=abc", "CNI_NETNS=/proc/self/ns/net", "CNI_IFNAME=eth0",
			"CNI_PATH=" + dir, "CNI_NETNS_OVERRIDE=1", "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(config)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("ADD"); err != nil || !strings.Contains(out, "10.42.3.2/24") {
		t.Fatalf("ADD: got %s, %v, want the delegate's result", out, err)
	}
	// The subnet may change; CHECK and DEL must not.
	if err := os.Remove(env); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"CHECK", "DEL"} {
		stdin := ""
		if command == "CHECK" {
			stdin, config = config, strings.Replace(config, `"delegate"`, `"prevResult":{"cniVersion":"1.0.0"},"delegate"`, 1)
		}
		if out, err := run(command); err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
		}
		if stdin != "" {
			config = stdin
		}
		want, _ := os.ReadFile(filepath.Join(dir, "ADD"))
		if got, err := os.ReadFile(filepath.Join(dir, command)); err != nil || string(got) != string(want) {
			t.Errorf("%s delegated %s, %v, want what ADD did: %s", command, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "abc")); !os.IsNotExist(err) {
		t.Errorf("after DEL the record is left: %v", err)
	}
	if out, err := run("DEL"); err != nil {
		t.Errorf("second DEL: %v: %s", err, out)
	}
}
