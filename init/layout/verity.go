package layout

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Verity ties a boot to one root: it is the value of ParamVerity.
type Verity struct {
	RootHash   []byte // sha256, 32 bytes
	DataBlocks uint64 // size of the EROFS in blocks; the tree starts right behind
	Salt       []byte // VeritySaltLen bytes
}

// String renders v as ParseVerity reads it.
func (v Verity) String() string {
	return fmt.Sprintf("%x:%d:%x", v.RootHash, v.DataBlocks, v.Salt)
}

// HashOffset is where veritysetup's superblock is, in bytes from the start of
// the partition.
func (v Verity) HashOffset() uint64 { return v.DataBlocks * BlockSize }

// ParseVerity reads "<root hash hex>:<data blocks>:<salt hex>".
func ParseVerity(s string) (Verity, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return Verity{}, fmt.Errorf("%s=%s: want <root hash>:<data blocks>:<salt>", ParamVerity, s)
	}
	hash, err := hex.DecodeString(parts[0])
	if err != nil || len(hash) != 32 {
		return Verity{}, fmt.Errorf("%s: root hash %q: want 64 hexadecimal digits", ParamVerity, parts[0])
	}
	blocks, err := strconv.ParseUint(parts[1], 10, 40)
	if err != nil || blocks == 0 {
		return Verity{}, fmt.Errorf("%s: data blocks %q: want a positive number", ParamVerity, parts[1])
	}
	salt, err := hex.DecodeString(parts[2])
	if err != nil || len(salt) != VeritySaltLen {
		return Verity{}, fmt.Errorf("%s: salt %q: want %d hexadecimal digits", ParamVerity, parts[2], 2*VeritySaltLen)
	}
	return Verity{RootHash: hash, DataBlocks: blocks, Salt: salt}, nil
}
