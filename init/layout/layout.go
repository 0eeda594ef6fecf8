// Package layout is the on-disk contract of a Keelson machine: partition
// labels, types and sizes, paths of the root and of the state, and the names
// of the kernel parameters that tie a boot to a root.
//
// imagebuild writes what is named here, init looks for it, and nothing else
// in the tree spells these names again. The package holds constants and pure
// functions; it never opens a file and imports only the standard library.
package layout

import "fmt"

// Partition labels (the GPT entry's name, PARTLABEL in Linux).
const (
	LabelBIOS  = "KEELSON-BIOS"
	LabelESP   = "KEELSON-ESP"
	LabelRootA = "KEELSON-ROOT-A"
	LabelRootB = "KEELSON-ROOT-B"
	LabelState = "KEELSON-STATE"
)

// Labels on a CD or stick that runs live: the root, in place of the slots, and what it installs a disk from.
const (
	LabelLive    = "KEELSON-LIVE"
	LabelPayload = "KEELSON-PAYLOAD"
)

// LabelPrefix begins every partition label of ours.
const LabelPrefix = "KEELSON-"

// Partition numbers: the index in the GPT, counted from 1. BIOS boot exists
// on x86_64 only; the number stays free elsewhere.
const (
	NumberBIOS  = 1
	NumberESP   = 2
	NumberRootA = 3
	NumberRootB = 4
	NumberState = 5

	// On a medium that runs live.
	NumberLive    = 3
	NumberPayload = 4
)

// Partition type GUIDs in their usual text form.
//
// BIOS boot and ESP: UEFI 2.10 table 5.7 and the GRUB manual. Linux root
// x86-64/arm64 and generic Linux var data: UAPI group, discoverable partitions
// specification. The slots carry the root type and the flag that forbids
// automatic mounting, so that no other system on the disk picks them up.
const (
	TypeBIOSBoot  = "21686148-6449-6e6f-744e-656564454649"
	TypeESP       = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeRootAMD64 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	TypeRootARM64 = "b921b045-1df0-41c3-af44-4c6f280d3fae"
	TypeState     = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
	TypeData      = "0fc63daf-8483-4772-8e79-3d69d8477de4" // generic Linux data
)

// Attribute bits of a GPT entry for the root slots (discoverable partitions
// specification: 60 read-only, 63 no automatic mount).
const (
	AttrReadOnly    uint64 = 1 << 60
	AttrNoAutomount uint64 = 1 << 63
	AttrRoot               = AttrReadOnly | AttrNoAutomount
)

// Sizes in bytes. Every partition starts at a multiple of Align.
const (
	SectorSize = 512
	Align      = 1 << 20
	BIOSSize   = 1 << 20
	ESPSize    = 96 << 20

	// SlotSize is what each root slot is given on a disk that has the room.
	SlotSize = 1 << 30
	// StateMinSize is the least that STATE may be: below it, the first boot
	// stops and says how large a disk is needed.
	StateMinSize = 1 << 30
)

// Root file system and its verity tree. The tree follows the data directly,
// with veritysetup's superblock (format 1) at its beginning.
const (
	BlockSize     = 4096 // EROFS block, verity data block and verity hash block
	VeritySaltLen = 32
	VerityHash    = "sha256"
	VerityName    = "keelson-root" // device-mapper name while it is mounted
)

// Ext4 label of the state file system.
const StateFSLabel = LabelState

// Kernel parameters that init reads (console=, quiet and so on stay the
// kernel's own).
const (
	ParamSlot     = "keelson.slot"      // a or b
	ParamVerity   = "keelson.verity"    // <root hash hex>:<data blocks>:<salt hex>
	ParamEpoch    = "keelson.epoch"     // Unix seconds: the image's build stamp, floor of the clock
	ParamUserData = "keelson.user-data" // base64 of a #cloud-config document
	ParamLogs     = "keelson.logs"      // console: every service line goes to the console
	ParamLive     = "keelson.live"      // LiveMedium or LiveMemory
)

// Where the root of a machine is that runs live: values of ParamLive.
const (
	LiveMedium = "1"      // on a CD or stick
	LiveMemory = "memory" // in the initramfs, as the file RootInMemory: a loader brought it along, from the network
)

// RootInMemory is the content of a root partition in an initramfs.
const RootInMemory = "/keelson.root"

// Paths inside the verified root.
const (
	Init        = "/usr/sbin/init"
	Node        = "/usr/bin/node"
	FactoryEtc  = "/usr/share/factory/etc"
	Zoneinfo    = "/usr/share/zoneinfo"
	Modules     = "/usr/lib/modules"
	Firmware    = "/usr/lib/firmware" // where the kernel looks, by the link /lib
	Doc         = "/usr/share/doc"
	SysctlDir   = "/usr/lib/sysctl.d"
	ModulesLoad = "/usr/lib/modules-load.d"
	OSRelease   = "/usr/lib/os-release"
	Keelson     = "/usr/lib/keelson"
	Layers      = Keelson + "/layers"
	Images      = Keelson + "/images"
	Manifests   = Keelson + "/manifests"
	Archives    = Keelson + "/archives" // images for containerd; node/worker looks there
	CNIBin      = Keelson + "/cni/bin"
	Manifest    = Keelson + "/manifest.json"
	E2fsck      = "/usr/sbin/e2fsck"
	Mke2fs      = "/usr/sbin/mke2fs"
)

// Paths of a running machine.
const (
	State         = "/var" // where STATE is mounted
	StateKeelson  = "/var/lib/keelson"
	MachineID     = StateKeelson + "/machine-id"
	RandomSeed    = StateKeelson + "/random-seed"
	Hostname      = StateKeelson + "/hostname"
	UserData      = StateKeelson + "/user-data"   // last accepted document
	LastTime      = StateKeelson + "/last-time"   // newest time known, floor of the clock
	PowerState    = StateKeelson + "/power-state" // the wish of power_state that was followed
	TimelineState = StateKeelson + "/timeline.json"
	RancherState  = StateKeelson + "/etc/rancher" // bind mounted on EtcRancher
	Logs          = "/var/log/keelson"

	Run         = "/run/keelson"
	TimelineRun = Run + "/timeline.json"

	// UserDataNotes has what of the user-data is passed over and why, a line each.
	UserDataNotes = Run + "/user-data.notes"

	SSHKeys      = "/etc/ssh/authorized_keys"
	EtcRancher   = "/etc/rancher"
	RKE2Config   = EtcRancher + "/rke2/config.yaml"
	RKE2ConfigD  = EtcRancher + "/rke2/config.yaml.d"
	RKE2UserData = RKE2ConfigD + "/00-user-data.yaml"
)

// ESPDir is the directory on the ESP that carries user-data, meta-data,
// vendor-data and network-config.
const ESPDir = "/keelson"

// FWCfgPrefix goes before the same four names in QEMU's fw_cfg.
const FWCfgPrefix = "opt/keelson/"

// NoCloudLabels are the volume labels of a NoCloud seed (cloud-init's
// NoCloud data source; both spellings are in use).
func NoCloudLabels() []string { return []string{"cidata", "CIDATA"} }

// MountPoints are the empty directories that the read-only root must have.
func MountPoints() []string {
	return []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/etc", "/boot", "/mnt"}
}

// Slot is one of the two root partitions.
type Slot string

// The two slots.
const (
	SlotA Slot = "a"
	SlotB Slot = "b"
)

// ParseSlot reads the value of ParamSlot.
func ParseSlot(s string) (Slot, error) {
	switch Slot(s) {
	case SlotA, SlotB:
		return Slot(s), nil
	}
	return "", fmt.Errorf("slot %q: want %q or %q", s, SlotA, SlotB)
}

// Label is the partition label of the slot.
func (s Slot) Label() string {
	if s == SlotB {
		return LabelRootB
	}
	return LabelRootA
}

// Other is the slot that an update is written to.
func (s Slot) Other() Slot {
	if s == SlotB {
		return SlotA
	}
	return SlotB
}

// RootType is the type GUID of a root slot for an architecture as Go names it.
func RootType(goarch string) (string, error) {
	switch goarch {
	case "amd64":
		return TypeRootAMD64, nil
	case "arm64":
		return TypeRootARM64, nil
	}
	return "", fmt.Errorf("root partition type: architecture %q is not supported: want amd64 or arm64", goarch)
}
