package reserve

import "fmt"

const (
	mib = 1 << 20
	gib = 1 << 30
)

// limits are the sizes that matter on a disk. The kubelet evicts pods when a twentieth is left (node/kubelet, as with
// RKE2), so low is above that where it is not more than anybody needs. etcd allocates its log by 64 MiB
// (go.etcd.io/etcd/server/v3/storage/wal, SegmentSizeBytes) and ends when it cannot: the reserve has room for two of them.
type limits struct {
	size     uint64 // of the reserve
	low      uint64 // less is free: what can be spared goes
	critical uint64 // less is free in spite of that: the reserve goes
	none     uint64 // less is free: the reserve goes first
	back     uint64 // as much is free: all is well again
}

func limitsOf(total uint64) limits {
	l := limits{
		size:     min(between(128*mib, total/32, 512*mib), total/8),
		low:      min(between(192*mib, total/16, 4*gib), total/8),
		critical: min(between(96*mib, total/64, 512*mib), total/16),
	}
	l.none, l.back = l.critical/4, l.low+l.low/4
	return l
}

func between(least, value, most uint64) uint64 { return min(max(least, value), most) }

// size writes a number of bytes for people.
func size(bytes uint64) string {
	if bytes >= 10*gib {
		return fmt.Sprintf("%d GiB", bytes/gib)
	}
	return fmt.Sprintf("%d MiB", bytes/mib)
}
