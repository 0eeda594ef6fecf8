package token

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keelson/node/file"
)

// User is a row of the password file.
type User struct {
	Name     string
	Password Secret
	Roles    []string
}

// ErrTokenChanged is a server token in the settings that is not the cluster's.
var ErrTokenChanged = errors.New("token in the settings differs from the token this cluster was made with; set the old one or remove the key")

// ParsePasswd reads the CSV rows password,user,user,groups (k3s pkg/passwd).
func ParsePasswd(data []byte) ([]User, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		// The error of the CSV reader holds a position only, no text of the file.
		return nil, fmt.Errorf("parse password file: %w", err)
	}
	var users []User
	for i, row := range rows {
		if len(row) < 3 || row[0] == "" || row[1] == "" {
			return nil, fmt.Errorf("parse password file: row %d is not password,user,user,groups", i+1)
		}
		u := User{Name: row[1], Password: Secret(row[0])}
		if len(row) > 3 && row[3] != "" {
			u.Roles = strings.Split(row[3], ",")
		}
		users = append(users, u)
	}
	return users, nil
}

// RenderPasswd writes the rows.
func RenderPasswd(users []User) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	for _, u := range users {
		if err := w.Write([]string{u.Password.Reveal(), u.Name, u.Name, strings.Join(u.Roles, ",")}); err != nil {
			return nil, fmt.Errorf("render password file: %w", err)
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// LoadPasswd reads the password file; absent, it has no users.
func LoadPasswd(path string) ([]User, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read password file: %w", err)
	}
	return ParsePasswd(data)
}

// Passwords are the two shared secrets of a cluster, bare.
type Passwords struct {
	Server Secret
	Agent  Secret // equal to Server where no agent token is set
}

// ErrTokenLost is a cluster whose password file is gone and whose token nobody has set.
var ErrTokenLost = errors.New("cred/passwd is gone and no token is set; set the token that this cluster was made with. " +
	"If nobody has it any more, set a new one and token-recover: true, which does what `node token recover` does where etcd runs")

// EnsurePasswd settles the cluster's secrets and makes <serverDir>/cred/passwd hold them. A server token that is
// not set is the one of the file, and is generated where there is no file. Where a cluster exists already, another
// server token than the file's is ErrTokenChanged, and no token at all is ErrTokenLost; settings that still hold the
// token before the last rotation do no harm (IsPrevious tells). The agent token may change at will. Rows of other
// users stay.
func EnsurePasswd(serverDir string, server, agent Secret, clusterExists bool) (Passwords, error) {
	path := filepath.Join(serverDir, "cred", "passwd")
	users, err := LoadPasswd(path)
	if err != nil {
		return Passwords{}, err
	}
	var p Passwords
	have := find(users, UserServer)
	switch {
	case server != "":
		if p.Server, err = ServerPassword(server); err != nil {
			return Passwords{}, fmt.Errorf("token: %w", err)
		}
		if clusterExists && have != nil && have.Password != p.Server {
			old, err := IsPrevious(serverDir, server)
			if err != nil {
				return Passwords{}, err
			}
			if !old {
				return Passwords{}, ErrTokenChanged
			}
			p.Server = have.Password
		}
	case have != nil:
		p.Server = have.Password
	case clusterExists:
		return Passwords{}, ErrTokenLost
	default:
		p.Server = Generate()
	}
	p.Agent = p.Server
	if agent != "" {
		if p.Agent, err = ServerPassword(agent); err != nil {
			return Passwords{}, fmt.Errorf("agent-token: %w", err)
		}
	}
	users = put(users, User{UserNode, p.Agent, []string{RoleAgent}})
	users = put(users, User{UserServer, p.Server, []string{RoleServer}})
	data, err := RenderPasswd(users)
	if err != nil {
		return Passwords{}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Passwords{}, fmt.Errorf("write password file: %w", err)
	}
	if _, err := file.Ensure(path, data, 0o600); err != nil {
		return Passwords{}, err
	}
	return p, nil
}

// EnsureFiles writes the tokens that people copy: <serverDir>/token, node-token and agent-token, with the CA of
// bundle pinned.
func EnsureFiles(serverDir string, bundle []byte, p Passwords) error {
	server, err := Format(bundle, UserServer, p.Server)
	if err != nil {
		return err
	}
	if _, err := file.Ensure(filepath.Join(serverDir, "token"), []byte(server.Reveal()+"\n"), 0o600); err != nil {
		return err
	}
	if err := file.Symlink("token", filepath.Join(serverDir, "node-token")); err != nil {
		return err
	}
	agentPath := filepath.Join(serverDir, "agent-token")
	if p.Agent == p.Server {
		return file.Symlink("token", agentPath)
	}
	agent, err := Format(bundle, UserNode, p.Agent)
	if err != nil {
		return err
	}
	_, err = file.Ensure(agentPath, []byte(agent.Reveal()+"\n"), 0o600)
	return err
}

func find(users []User, name string) *User {
	for i := range users {
		if users[i].Name == name {
			return &users[i]
		}
	}
	return nil
}

func put(users []User, u User) []User {
	if have := find(users, u.Name); have != nil {
		*have = u
		return users
	}
	return append(users, u)
}
