package bootstrapdata

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"keelson/node/token"
)

// Parameters of the record's cipher (k3s pkg/cluster/encrypt.go). SHA-1 and 4096 rounds are what every RKE2 reads;
// they are enough for the 128 random bits of a generated token.
const (
	keyRounds = 4096
	keyLength = 32
	saltBytes = 8
)

// Prefix begins the keys of records in etcd.
const Prefix = "/bootstrap/"

// ErrCipher is a record that is not of the form salt:base64.
var ErrCipher = errors.New("bootstrap data is not of the form salt:data")

// ErrPassword is a record that another password encrypted, or that was changed.
var ErrPassword = errors.New("bootstrap data cannot be decrypted with this token")

// Key is the etcd key of the record that password encrypts: the prefix and 12 hex digits of the password's SHA-256.
func Key(password token.Secret) string {
	sum := sha256.Sum256([]byte(password.Reveal()))
	return Prefix + hex.EncodeToString(sum[:])[:12]
}

// Encrypt seals plain for etcd.
func Encrypt(password token.Secret, plain []byte) (string, error) {
	var salt [saltBytes]byte
	var nonce [12]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand)
	_, _ = rand.Read(nonce[:])
	return seal(password, plain, hex.EncodeToString(salt[:]), nonce[:])
}

// seal encrypts with a given salt, whose hex text itself goes into the key derivation, and nonce.
func seal(password token.Secret, plain []byte, salt string, nonce []byte) (string, error) {
	gcm, err := newCipher(password, salt)
	if err != nil {
		return "", err
	}
	return salt + ":" + base64.StdEncoding.EncodeToString(gcm.Seal(nonce, nonce, plain, nil)), nil
}

// Decrypt opens a record's value.
func Decrypt(password token.Secret, value string) ([]byte, error) {
	salt, text, ok := strings.Cut(value, ":")
	if !ok {
		return nil, ErrCipher
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, ErrCipher
	}
	gcm, err := newCipher(password, salt)
	if err != nil {
		return nil, err
	}
	if len(data) < gcm.NonceSize() {
		return nil, ErrCipher
	}
	plain, err := gcm.Open(nil, data[:gcm.NonceSize()], data[gcm.NonceSize():], nil)
	if err != nil {
		return nil, ErrPassword
	}
	return plain, nil
}

func newCipher(password token.Secret, salt string) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha1.New, password.Reveal(), []byte(salt), keyRounds, keyLength)
	if err != nil {
		return nil, fmt.Errorf("derive bootstrap key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("bootstrap cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("bootstrap cipher: %w", err)
	}
	return gcm, nil
}
