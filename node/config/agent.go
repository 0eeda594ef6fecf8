package config

// CheckAgent judges what an agent's settings must hold; what only its cluster can tell is left to Resolve. The error is
// Problems.
func (c Config) CheckAgent() error {
	var problems Problems
	if c.Server == "" {
		problems = append(problems, c.problem("server", "is not set; an agent needs the address of a server of its cluster, such as https://10.0.0.1:9345"))
	}
	if c.Token == "" {
		problems = append(problems, c.problem("token", "is not set; copy the token from /var/lib/rancher/rke2/server/token or node-token of a server"))
	}
	return problems.err()
}
