package encryption

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Stage is how far a rotation of keys has come: RKE2's names (k3s pkg/secretsencrypt).
type Stage string

// The stages. A request or the status may name others than the file does: a rotation under way is in Prepare or
// Rotate for its whole length.
const (
	Start      Stage = "start"
	Prepare    Stage = "prepare"            // the last key is new, and nothing is written with it
	Rotate     Stage = "rotate"             // the first key is new, and Secrets may be left that only others open
	RotateKeys Stage = "rotate_keys"        // asked for: all of the stages, one after the other
	Request    Stage = "reencrypt_request"  // of RKE2's older servers
	Active     Stage = "reencrypt_active"   // Secrets are being written anew
	Finished   Stage = "reencrypt_finished" // what is not needed any more is dropped
)

func stages() []Stage {
	return []Stage{Start, Prepare, Rotate, RotateKeys, Request, Active, Finished}
}

// ErrStage is a change that the present stage does not allow.
var ErrStage = errors.New("not at this stage")

// Settings are the two files: what Secrets are encrypted with, and how far a rotation has come.
type Settings struct {
	Configuration
	Stage Stage
	Data  []byte // of the configuration's file, whose hash servers compare
}

// String tells no key.
func (s Settings) String() string { return s.Mark() }

// GoString is String.
func (s Settings) GoString() string { return s.Mark() }

// Load reads the contents of encryption-config.json and encryption-state.json. The hash in the state is not looked
// at: a cut between the writes of the two files leaves another one's, and the configuration is what counts.
func Load(config, state []byte) (Settings, error) {
	c, err := Parse(config)
	if err != nil {
		return Settings{}, fmt.Errorf("read encryption-config.json: %w", err)
	}
	stage, err := parseState(state)
	if err != nil {
		return Settings{}, fmt.Errorf("read encryption-state.json: %w", err)
	}
	return Settings{Configuration: c, Stage: stage, Data: config}, nil
}

// parseState reads `<stage>-<sha256>`.
func parseState(data []byte) (Stage, error) {
	name, sum, ok := strings.Cut(strings.TrimSpace(string(data)), "-")
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size || !slices.Contains(stages(), Stage(name)) {
		return "", errors.New("it is not a stage and a hash")
	}
	return Stage(name), nil
}

// Mark is `<stage>-<sha256 of the configuration>`: the state's file, and the annotation of a server that has loaded
// the configuration.
func (s Settings) Mark() string { return string(s.Stage) + "-" + s.Hash() }

// Hash is the sha256 of the configuration's file.
func (s Settings) Hash() string {
	sum := sha256.Sum256(s.Data)
	return hex.EncodeToString(sum[:])
}

func (s Settings) become(stage Stage, c Configuration) (Settings, error) {
	data, err := c.Render()
	if err != nil {
		return Settings{}, err
	}
	return Settings{Configuration: c, Stage: stage, Data: data}, nil
}

// NewKey makes a key, named as RKE2 names them.
func NewKey(provider string, now time.Time) Key {
	return Key{
		Provider: provider,
		Name:     provider + "key-" + now.UTC().Format(time.RFC3339),
		Secret:   base64.StdEncoding.EncodeToString(random(keySize)),
	}
}

// Idle tells whether no rotation is under way.
func (s Settings) Idle() bool { return s.Stage != Prepare && s.Stage != Rotate }

// Prepared adds a key behind all others: Secrets can be read with it, and none is written.
func (s Settings) Prepared(now time.Time, force bool) (Settings, error) {
	if s.Plain {
		return Settings{}, fmt.Errorf("prepare: %w: encryption is disabled; enable it first", ErrStage)
	}
	if !s.Idle() && !force {
		return Settings{}, fmt.Errorf("prepare: %w: a rotation is under way, at %s", ErrStage, s.Stage)
	}
	all := append(slices.Clone(s.Keys), NewKey(s.Keys[0].Provider, now))
	return s.become(Prepare, Configuration{Keys: all})
}

// Rotated puts the last key first: Secrets are written with it.
func (s Settings) Rotated(force bool) (Settings, error) {
	if s.Plain || len(s.Keys) < 2 {
		return Settings{}, fmt.Errorf("rotate: %w: there is no second key in use; prepare one first", ErrStage)
	}
	if s.Stage != Prepare && !force {
		return Settings{}, fmt.Errorf("rotate: %w: it comes after prepare, and this is %s", ErrStage, s.Stage)
	}
	last := len(s.Keys) - 1
	return s.become(Rotate, Configuration{Keys: append([]Key{s.Keys[last]}, s.Keys[:last]...)})
}

// Dropped keeps the first key alone. Only when every Secret was written with it may that be done.
func (s Settings) Dropped() (Settings, error) {
	if s.Plain {
		return Settings{}, fmt.Errorf("drop keys: %w: encryption is disabled, and the key is kept for when it is enabled again", ErrStage)
	}
	return s.become(Finished, Configuration{Keys: s.Keys[:1]})
}

// Enabled has Secrets written with the first key, or in plain; the keys stay.
func (s Settings) Enabled(enable bool) (Settings, error) {
	if !s.Idle() {
		return Settings{}, fmt.Errorf("enable or disable: %w: a rotation is under way, at %s; finish it first", ErrStage, s.Stage)
	}
	return s.become(s.Stage, Configuration{Keys: s.Keys, Plain: !enable})
}
