package userdata

import (
	"encoding/pem"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keys names every top-level key that has an effect here.
func keys() []string {
	return []string{"ca_certs", "disk_setup", "fqdn", "fs_setup", "hostname", "install", "modules", "mounts", "ntp", "power_state", "rke2",
		"ssh_authorized_keys", "swap", "sysctls", "timezone", "write_files"}
}

// settled names keys whose wish is met without doing anything: the machine
// enlarges its state to the disk, keeps its name, and writes /etc/hosts.
func settled() []string {
	return []string{"growpart", "resize_rootfs", "preserve_hostname", "prefer_fqdn_over_hostname",
		"create_hostname_file", "manage_etc_hosts", "ntp_client", "final_message"}
}

// unsupported names cloud-init's keys that a node cannot honour, and why
// (modules: canonical/cloud-init doc/rtd/reference/modules.rst).
func unsupported() map[string]string {
	const (
		noShell    = "there is no shell to run it"
		noPackages = "the root is read-only and has no package manager"
		noUsers    = "a node has no users to log in"
		noTool     = "no such program is on a node"
		noAliases  = "a document names the devices themselves"
	)
	return map[string]string{
		"runcmd": noShell, "bootcmd": noShell, "phone_home": "a node reports to its cluster alone",
		"packages": noPackages, "package_update": noPackages, "package_upgrade": noPackages,
		"package_reboot_if_required": noPackages, "apt": noPackages, "snap": noPackages, "yum_repos": noPackages,
		"yum_repo_dir": noPackages, "zypper": noPackages, "apk_repos": noPackages, "updates": noPackages,
		"users": noUsers, "user": noUsers, "groups": noUsers, "chpasswd": noUsers, "password": noUsers,
		"ssh_pwauth": noUsers, "disable_root": noUsers, "ssh_import_id": noUsers, "system_info": noUsers,
		"ssh": noUsers, "ssh_keys": noUsers, "ssh_deletekeys": noUsers, "ssh_genkeytypes": noUsers,
		"chef": noTool, "puppet": noTool, "ansible": noTool, "salt_minion": noTool, "mcollective": noTool,
		"landscape": noTool, "ubuntu_pro": noTool, "ubuntu_advantage": noTool, "lxd": noTool, "rsyslog": noTool,
		"wireguard": noTool, "byobu": noTool, "rh_subscription": noTool, "spacewalk": noTool, "fan": noTool,
		"mount_default_fields": "each entry of mounts says all that matters", "device_aliases": noAliases,
		"locale": "programs on a node speak English only", "locale_configfile": "programs on a node speak English only",
		"keyboard":    "the console takes no input",
		"network":     "cloud-init takes it from the file network-config, and so do we; move it there",
		"resolv_conf": "name servers belong to network-config", "manage_resolv_conf": "name servers belong to network-config",
		"random_seed": "the seed is kept on the state partition",
		"grub_dpkg":   "the image brings its boot loader", "output": "logs of services are kept by init",
		"merge_how": "documents are merged in one way: maps key by key, lists replaced", "merge_type": "documents are merged in one way: maps key by key, lists replaced",
		"cloud_init_modules": "there is no cloud-init", "cloud_config_modules": "there is no cloud-init",
		"cloud_final_modules": "there is no cloud-init", "datasource": "sources are found by themselves",
		"datasource_list": "sources are found by themselves", "vendor_data": "vendor-data is always merged",
	}
}

func (l *loader) cloudConfig(root *yaml.Node) {
	var hostname, fqdn string
	pairs := l.Pairs(root, "")
	for _, p := range pairs {
		name := p.Name
		if name == "ca-certs" { // cloud-init's older spelling
			name = "ca_certs"
		}
		switch name {
		case "hostname", "fqdn":
			s, ok := l.String(p.Value, name)
			if !ok {
				continue
			}
			if err := checkName(s); err != nil {
				l.Bad(p.Value, name, "%v", err)
			} else if name == "fqdn" {
				fqdn = strings.ToLower(s)
			} else {
				hostname = strings.ToLower(s)
			}
		case "install":
			l.install(p.Value)
		case "rke2":
			l.mergeRKE2(p.Value)
		case "write_files":
			l.writeFiles(p.Value)
		case "ntp":
			l.ntp(p.Value)
		case "timezone":
			if s, ok := l.String(p.Value, name); ok && validZone(s) {
				l.cfg.Timezone = s
			} else if ok {
				l.Bad(p.Value, name, "%q is not the name of a time zone; write one like Europe/Berlin or UTC", s)
			}
		case "ca_certs":
			l.caCerts(p.Value)
		case "sysctls":
			l.sysctls(p.Value)
		case "modules":
			l.modules(p.Value)
		case "disk_setup":
			l.diskSetup(p.Value)
		case "mounts":
			l.mounts(p.Value)
		case "swap":
			l.swap(p.Value)
		case "power_state":
			l.powerState(p.Value)
		case "ssh_authorized_keys":
			l.cfg.SSHKeys = nil
			for i, key := range l.Strings(p.Value, name) {
				if strings.ContainsAny(key, "\n\r\x00") || len(strings.Fields(key)) < 2 {
					l.Bad(p.Value, fmt.Sprintf("%s[%d]", name, i), "is no public key of one line, like ssh-ed25519 AAAA... name")
					continue
				}
				l.cfg.SSHKeys = append(l.cfg.SSHKeys, key)
			}
			l.Note(p.Key, name, "has an effect on images with the debug overlay only, since no other has an SSH server")
		case "fs_setup":
		default:
			l.passOver(p)
		}
	}
	for _, p := range pairs { // after disk_setup, wherever that stands
		if p.Name == "fs_setup" {
			l.fsSetup(p.Value)
		}
	}
	l.name(hostname, fqdn)
}

// name settles what a document says of the name as cloud-init does
// (cloudinit/util.py get_hostname_fqdn): a hostname with dots is the full name.
func (l *loader) name(hostname, fqdn string) {
	if fqdn == "" && strings.Contains(hostname, ".") {
		fqdn = hostname
	}
	if hostname == "" {
		hostname = fqdn
	}
	if hostname == "" {
		return
	}
	l.cfg.Hostname, _ = lowerFirst(hostname)
	l.cfg.FQDN = fqdn
}

func lowerFirst(s string) (host, fqdn string) {
	s = strings.ToLower(s)
	host, _, dotted := strings.Cut(s, ".")
	if !dotted {
		return host, ""
	}
	return host, s
}

// passOver tells of a top-level key without effect.
func (l *loader) passOver(p Pair) {
	for _, k := range settled() {
		if p.Name == k {
			return
		}
	}
	if why, ok := unsupported()[p.Name]; ok {
		l.Note(p.Key, p.Name, "is not supported: %s (passed over)", why)
		return
	}
	if near := nearest(p.Name, keys()); near != "" {
		l.Note(p.Key, p.Name, "is not known; did you mean %s? (passed over)", near)
		return
	}
	l.Note(p.Key, p.Name, "is not known (passed over)")
}

func (l *loader) ntp(n *yaml.Node) {
	known := []string{"enabled", "pools", "servers"}
	var servers []string
	given := false
	for _, p := range l.Pairs(n, "ntp") {
		key := Join("ntp", p.Name)
		switch p.Name {
		case "enabled":
			if v, ok := l.Bool(p.Value, key); ok {
				l.cfg.NTP.Disabled = !v
			}
		case "servers", "pools":
			given = true
			for i, s := range l.Strings(p.Value, key) {
				if !serverName(s) {
					l.Bad(p.Value, fmt.Sprintf("%s[%d]", key, i), "%q is neither a host name nor an address", s)
					continue
				}
				servers = append(servers, s)
			}
		case "ntp_client", "config":
			l.Note(p.Key, key, "is not supported: time is kept by init itself (passed over)")
		default:
			l.Unknown(p, "ntp", known)
		}
	}
	if given {
		l.cfg.NTP.Servers = servers
	}
}

func (l *loader) caCerts(n *yaml.Node) {
	known := []string{"remove_defaults", "trusted"}
	for _, p := range l.Pairs(n, "ca_certs") {
		key := Join("ca_certs", p.Name)
		switch strings.ReplaceAll(p.Name, "-", "_") {
		case "remove_defaults":
			if v, ok := l.Bool(p.Value, key); ok {
				l.cfg.CACerts.RemoveDefaults = v
			}
		case "trusted":
			l.cfg.CACerts.Trusted = nil
			items := l.Items(p.Value, key)
			for i, item := range items {
				s, ok := l.String(item, fmt.Sprintf("%s[%d]", key, i))
				if !ok {
					continue
				}
				if err := checkPEM([]byte(s)); err != nil {
					l.Bad(item, fmt.Sprintf("%s[%d]", key, i), "%v", err)
					continue
				}
				l.cfg.CACerts.Trusted = append(l.cfg.CACerts.Trusted, strings.TrimSpace(s)+"\n")
			}
		default:
			l.Unknown(p, "ca_certs", known)
		}
	}
}

func checkPEM(data []byte) error {
	count := 0
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a PEM block %.30q; only CERTIFICATE belongs here", block.Type)
		}
		count, data = count+1, rest
	}
	if count == 0 || strings.Contains(string(data), "-----BEGIN") {
		return fmt.Errorf("is not a PEM certificate; write it as a block (|) from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----")
	}
	return nil
}

func (l *loader) sysctls(n *yaml.Node) {
	for _, p := range l.Pairs(n, "sysctls") {
		v, ok := l.String(p.Value, Join("sysctls", p.Name))
		if !ok {
			continue
		}
		if !regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_./*]*$`).MatchString(p.Name) || strings.Contains(p.Name, "..") ||
			strings.ContainsAny(v, "\n\x00") {
			l.Bad(p.Key, Join("sysctls", p.Name), "is not a kernel setting; write it like net.ipv4.ip_forward: 1")
			continue
		}
		at := -1
		for i, s := range l.cfg.Sysctls {
			if s.Key == p.Name {
				at = i
			}
		}
		if at < 0 {
			l.cfg.Sysctls = append(l.cfg.Sysctls, Sysctl{p.Name, v})
		} else {
			l.cfg.Sysctls[at].Value = v
		}
	}
}

func (l *loader) modules(n *yaml.Node) {
	l.cfg.Modules = nil
	for i, item := range l.Items(n, "modules") {
		key := fmt.Sprintf("modules[%d]", i)
		s, ok := l.String(item, key)
		if ok && !regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`).MatchString(s) {
			l.Bad(item, key, "%q is not the name of a kernel module; write the name alone, without path or options", s)
		} else if ok {
			l.cfg.Modules = append(l.cfg.Modules, s)
		}
	}
}

func validZone(s string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9_+][-A-Za-z0-9_+/]{0,63}$`).MatchString(s) && path.Clean(s) == s
}

func serverName(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Zone() == "" || checkName(strings.TrimSuffix(s, ".")) == nil
}
