package reencryption

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/encryption"
	"keelson/node/token"
)

// ErrMoved is a record that another server, or a restore, has changed meanwhile.
var ErrMoved = errors.New("the encryption was changed by someone else meanwhile; look at its status, and ask again")

// Bootstrap is the Record in the cluster's bootstrap data.
type Bootstrap struct {
	Store    bootstrapdata.Transactor
	Password func() token.Secret // the server token of the moment
}

// Entries of the record (bootstrapdata.Entries).
const (
	configEntry = "EncryptionConfig"
	stateEntry  = "EncryptionHash"
)

// Load implements Record.
func (b Bootstrap) Load(ctx context.Context) (encryption.Settings, error) {
	data, err := bootstrapdata.Load(ctx, b.Store, b.Password())
	if err != nil {
		return encryption.Settings{}, fmt.Errorf("load the cluster's encryption: %w", err)
	}
	return settingsOf(data)
}

func settingsOf(data bootstrapdata.Data) (encryption.Settings, error) {
	s, err := encryption.Load(data[configEntry].Content, data[stateEntry].Content)
	if err != nil {
		return s, fmt.Errorf("load the cluster's encryption: %w", err)
	}
	return s, nil
}

// Replace implements Record.
func (b Bootstrap) Replace(ctx context.Context, from, next encryption.Settings) error {
	_, err := bootstrapdata.Replace(ctx, b.Store, b.Password(), func(data bootstrapdata.Data) (bootstrapdata.Data, error) {
		have, err := settingsOf(data)
		if err != nil {
			return nil, err
		}
		if have.Mark() != from.Mark() {
			return nil, ErrMoved
		}
		now := time.Now()
		data[configEntry] = bootstrapdata.File{Timestamp: now, Content: next.Data}
		data[stateEntry] = bootstrapdata.File{Timestamp: now, Content: []byte(next.Mark())}
		return data, nil
	})
	return err
}
