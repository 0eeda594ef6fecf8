package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keelson/node/file"
)

// previousPath is where, below <server>, the token before the last rotation is kept. It is Keelson's own; RKE2 has no
// such file and does not read it.
const previousPath = "cred/passwd-previous.json"

// Previous is the server token that a rotation has replaced. While it is honoured its passwords are here; afterwards
// only a hash is, by which a start recognises settings that nobody has brought up to date.
type Previous struct {
	Passwords Passwords // empty once the overlap is over
	Hash      string    // of Passwords.Server
	Expires   time.Time // end of the overlap
}

type previousFile struct {
	Server  string    `json:"server,omitempty"`
	Agent   string    `json:"agent,omitempty"`
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires"`
}

// LoadPrevious reads the previous token; where there is none, the result is zero.
func LoadPrevious(serverDir string) (Previous, error) {
	path := filepath.Join(serverDir, previousPath)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Previous{}, nil
	} else if err != nil {
		return Previous{}, fmt.Errorf("read previous token: %w", err)
	}
	p, err := parsePrevious(data)
	if err != nil {
		return Previous{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func parsePrevious(data []byte) (Previous, error) {
	var f previousFile
	if err := json.Unmarshal(data, &f); err != nil || f.Hash == "" {
		// The reader's error may quote the text, which holds a token.
		return Previous{}, errors.New("is not the record of a rotation; remove it, and the token before the rotation is honoured no more")
	}
	return Previous{Passwords: Passwords{Secret(f.Server), Secret(f.Agent)}, Hash: f.Hash, Expires: f.Expires}, nil
}

// SavePrevious writes the previous token.
func SavePrevious(serverDir string, p Previous) error {
	data, err := json.Marshal(previousFile{p.Passwords.Server.Reveal(), p.Passwords.Agent.Reveal(), p.Hash, p.Expires.UTC()})
	if err != nil {
		return fmt.Errorf("write previous token: %w", err)
	}
	_, err = file.Ensure(filepath.Join(serverDir, previousPath), append(data, '\n'), 0o600)
	return err
}

// Users are the rows that the previous token adds to those of the password file.
func (p Previous) Users() []User {
	if p.Passwords.Server == "" {
		return nil
	}
	return []User{{UserNode, p.Passwords.Agent, []string{RoleAgent}}, {UserServer, p.Passwords.Server, []string{RoleServer}}}
}

// IsPrevious tells whether s is the server token that the last rotation has replaced, whether or not it is still
// honoured.
func IsPrevious(serverDir string, s Secret) (bool, error) {
	password, err := ServerPassword(s)
	if err != nil {
		return false, err
	}
	p, err := LoadPrevious(serverDir)
	if err != nil || p.Hash == "" {
		return false, err
	}
	return Verify(p.Hash, password)
}

// WithServer gives the rows with another server token. The row of agents follows where it had the same one, which is
// so where no agent token is set.
func WithServer(users []User, password Secret) []User {
	out := append([]User(nil), users...)
	old := find(out, UserServer)
	if node := find(out, UserNode); node == nil || old != nil && node.Password == old.Password {
		out = put(out, User{UserNode, password, []string{RoleAgent}})
	}
	return put(out, User{UserServer, password, []string{RoleServer}})
}

// PasswordsOf gives the two shared secrets of a password file's rows.
func PasswordsOf(users []User) Passwords {
	var p Passwords
	if u := find(users, UserServer); u != nil {
		p.Server = u.Password
	}
	p.Agent = p.Server
	if u := find(users, UserNode); u != nil {
		p.Agent = u.Password
	}
	return p
}
