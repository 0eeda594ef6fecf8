// Package identity keeps what makes a machine this machine: its id, its name
// where nobody gave one, and the seed of its random numbers.
//
// All three are made on the first boot and live on STATE; the image has none of
// them, so that no two machines share one.
package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unsafe"

	"keelson/init/file"

	"golang.org/x/sys/unix"
)

// EnsureMachineID returns the machine's id (machine-id(5)), made if absent.
func EnsureMachineID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if raw, herr := hex.DecodeString(id); herr == nil && len(raw) == 16 {
			return id, nil
		}
		return "", fmt.Errorf("machine id %s: want 32 hexadecimal digits: restore or delete the file", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	raw := make([]byte, 16)
	rand.Read(raw)
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80 // also a version 4 UUID
	id := hex.EncodeToString(raw)
	return id, file.Write(path, []byte(id+"\n"), 0o444)
}

// EnsureHostname returns the name of the machine: the one given, which is kept,
// else the one kept, else one made of the machine id. A node's name must not
// change with the network it boots in.
func EnsureHostname(path, given, machineID string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read host name: %w", err)
	}
	kept := strings.TrimSpace(string(b))
	name := given
	if name == "" && validName(kept) {
		name = kept
	}
	if name == "" {
		name = "keelson-" + machineID[:8]
	}
	if name == kept {
		return name, nil
	}
	return name, file.Write(path, []byte(name+"\n"), 0o644)
}

// validName is RFC 1123 as Kubernetes wants it of a node's name.
func validName(s string) bool {
	return len(s) <= 63 && regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`).MatchString(s)
}

// seedSize is the size of the kernel's pool (drivers/char/random.c, 256 bits)
// with room to spare, as systemd keeps it.
const seedSize = 512

// LoadSeed gives the kernel the seed of the last boot and makes a new one. The
// old file is gone from the disk before its content is credited, so that no
// seed counts twice; drawing the new one first would wait for the very entropy
// that the old one brings.
func LoadSeed(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read random seed: %w", err)
	}
	if len(old) == seedSize {
		if err := file.Remove(path); err != nil {
			return err
		}
		if err := credit(old); err != nil {
			return err
		}
	}
	return SaveSeed(path)
}

// SaveSeed draws a seed for the next boot.
func SaveSeed(path string) error {
	seed := make([]byte, seedSize)
	rand.Read(seed)
	return file.Write(path, seed, 0o600)
}

// randPoolInfo is struct rand_pool_info of include/uapi/linux/random.h.
type randPoolInfo struct {
	bits, size int32
	data       [seedSize]byte
}

func credit(seed []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("credit random seed: %w", err)
	}
	defer f.Close()
	info := randPoolInfo{bits: seedSize * 8, size: seedSize}
	copy(info.data[:], seed)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("credit random seed: %w", errno)
	}
	return nil
}
