package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"

	"keelson/node/etcd"
)

// voting and learning are members with ids 1, 2, 3, ... at 10.0.0.<id>.
func voting(id uint64, name string) *etcdserverpb.Member {
	return &etcdserverpb.Member{
		ID: id, Name: name, PeerURLs: []string{fmt.Sprintf("https://10.0.0.%d:2380", id)}, ClientURLs: []string{fmt.Sprintf("https://10.0.0.%d:2379", id)},
	}
}

func learning(id uint64, name string) *etcdserverpb.Member {
	m := voting(id, name)
	m.IsLearner = true
	return m
}

func TestPlace(t *testing.T) {
	const here = "https://10.0.0.3:2380"
	for _, c := range []struct {
		name    string
		members []*etcdserverpb.Member
		joined  bool
		want    error
	}{
		{"new", []*etcdserverpb.Member{voting(1, "a-01"), voting(2, "b-01")}, false, nil},
		{"half joined", []*etcdserverpb.Member{voting(1, "a-01"), learning(3, "")}, true, nil},
		{"another is joining", []*etcdserverpb.Member{voting(1, "a-01"), learning(2, "")}, false, errLearnerFirst},
		{"name taken", []*etcdserverpb.Member{voting(1, "c-01")}, false, ErrDuplicateName},
		{"name taken by a learner", []*etcdserverpb.Member{voting(1, "a-01"), learning(2, "c-01")}, false, ErrDuplicateName},
		{"address taken", []*etcdserverpb.Member{voting(3, "a-01")}, false, ErrDuplicateAddress},
		{"itself, without its data", []*etcdserverpb.Member{voting(3, "c-02")}, false, ErrDuplicateName},
		{"a longer name", []*etcdserverpb.Member{voting(1, "c-1-01"), voting(2, "cc-01")}, false, nil},
		{"a name with lines", []*etcdserverpb.Member{voting(1, "c-01-c-01")}, false, nil},
	} {
		joined, err := place(c.members, "c", "c-02", here)
		if joined != c.joined || !errors.Is(err, c.want) || (c.want == nil && err != nil) {
			t.Errorf("%s: got %v, %v; want %v, %v", c.name, joined, err, c.joined, c.want)
		}
	}
}

func TestInitial(t *testing.T) {
	got := initial([]*etcdserverpb.Member{voting(2, "b-01"), learning(3, ""), voting(1, "a-01"), learning(0xabc, "")}, "c-01", "https://10.0.0.3:2380")
	want := "a-01=https://10.0.0.1:2380,abc=https://10.0.0.2748:2380,b-01=https://10.0.0.2:2380,c-01=https://10.0.0.3:2380"
	if got.Cluster != want || got.State != "existing" {
		t.Errorf("got %+v, want %s", got, want)
	}
	renamed := initial([]*etcdserverpb.Member{voting(2, "other"), voting(3, ""), voting(1, "a"), voting(0xabc, "d")}, "c-01", "https://10.0.0.3:2380")
	if !sameURLs(got, renamed) || sameURLs(got, initial([]*etcdserverpb.Member{voting(1, "a")}, "", "")) {
		t.Error("memberships are to be compared by their URLs")
	}
}

func TestPasses(t *testing.T) {
	for err, want := range map[error]bool{
		rpctypes.ErrTooManyLearners:                  true,
		rpctypes.ErrUnhealthy:                        true,
		rpctypes.ErrNoLeader:                         true,
		rpctypes.ErrTimeout:                          true,
		rpctypes.ErrPeerURLExist:                     true,
		context.DeadlineExceeded:                     true,
		fmt.Errorf("list: %w", rpctypes.ErrStopped):  true,
		rpctypes.ErrMemberBadURLs:                    false,
		rpctypes.ErrPermissionDenied:                 false,
		ErrDuplicateName:                             false,
		fmt.Errorf("x: %w", ErrDuplicateAddress):     false,
		errors.New("certificate of another cluster"): false,
	} {
		if passes(err) != want {
			t.Errorf("%v: got %v", err, !want)
		}
	}
}

func TestVerdict(t *testing.T) {
	id := etcd.Identity{Member: 3, Cluster: 7}
	down := answer{err: errors.New("refused")}
	yes := answer{cluster: 7, members: []*etcdserverpb.Member{voting(1, "a"), voting(3, "c")}}
	no := answer{cluster: 7, members: []*etcdserverpb.Member{voting(1, "a")}}
	other := answer{cluster: 8, members: yes.members}
	for _, c := range []struct {
		name    string
		answers []answer
		want    opinion
	}{
		{"nobody to ask", nil, unknown},
		{"all down", []answer{down, down}, unknown},
		{"member", []answer{yes, down}, present},
		{"removed", []answer{no, down}, absent},
		{"all agree that it is removed", []answer{no, no}, absent},
		{"restored from a snapshot, with the same numbers", []answer{other}, absent},
		{"one was reset, the others go on", []answer{yes, no}, divided},
	} {
		if got := verdict(c.answers, id); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if got := responsive([]answer{down, {endpoint: "x"}}); !slices.Equal(got, []string{"x"}) {
		t.Errorf("got %v", got)
	}
}

func TestJudge(t *testing.T) {
	start := time.Unix(1000, 0)
	m := learning(3, "c")
	var l track
	for i, c := range []struct {
		after         time.Duration
		applied, last uint64
		want          judgement
	}{
		{0, 0, 100, wait},
		{time.Minute, 10, 100, wait},
		{6*time.Minute - 1, 10, 100, wait}, // it moved a minute after the start
		{6 * time.Minute, 11, 100, wait},   // and again just in time
		{11*time.Minute - 1, 11, 1000, wait},
		{11 * time.Minute, 0, 1000, evict}, // not answering is standing still
		{11 * time.Minute, 900, 1000, promote},
		{12 * time.Minute, 899, 1000, wait},
	} {
		if got := l.judge(m, c.applied, c.last, start.Add(c.after), 5*time.Minute); got != c.want {
			t.Errorf("%d: got %v, want %v", i, got, c.want)
		}
	}
	if got := l.judge(learning(4, "d"), 0, 1000, start.Add(time.Hour), 5*time.Minute); got != wait {
		t.Error("the next learner answers for the last one's time")
	}
	content, err := json.Marshal(progress{ID: 3, Name: "c", RaftAppliedIndex: 5})
	if err != nil || !strings.HasPrefix(string(content), `{"id":3,"name":"c","raftAppliedIndex":5,"lastProgress":`) {
		t.Errorf("got %s, %v", content, err)
	}
}

func TestCompare(t *testing.T) {
	members := []*etcdserverpb.Member{voting(1, "a-01"), voting(2, "b-01"), learning(3, "c-01")}
	full := func() []*corev1.Node {
		return []*corev1.Node{node("a", "ua", "a-01", "10.0.0.1"), node("b", "ub", "b-01", "10.0.0.2"), node("c", "uc", "c-01", "10.0.0.3")}
	}
	seen := map[uint64]sighting{1: {"a", "ua"}, 2: {"b", "ub"}, 3: {"c", "uc"}}
	for _, c := range []struct {
		name   string
		nodes  func() []*corev1.Node
		seen   map[uint64]sighting
		next   map[uint64]sighting
		gone   []uint64
		wishes bool
	}{
		{"all there", full, nil, seen, nil, false},
		{"a Node is deleted", func() []*corev1.Node { return full()[1:] }, seen, seen, []uint64{1}, false},
		{"a learner's Node is deleted", func() []*corev1.Node { return full()[:2] }, seen, seen, []uint64{3}, false},
		{"a Node was never seen", func() []*corev1.Node { return full()[1:] }, map[uint64]sighting{2: {"b", "ub"}}, map[uint64]sighting{2: {"b", "ub"}, 3: {"c", "uc"}}, nil, false},
		{"no Nodes and none seen", func() []*corev1.Node { return nil }, nil, map[uint64]sighting{}, nil, false},
		{"forgets who is no member", full, map[uint64]sighting{9: {"x", "ux"}}, seen, nil, false},
		{"asks to go", func() []*corev1.Node {
			n := full()
			n[1].Annotations[AnnotationRemove] = "True"
			return n
		}, seen, seen, []uint64{2}, true},
		{"does not ask to go", func() []*corev1.Node {
			n := full()
			n[1].Annotations[AnnotationRemove] = "false"
			return n
		}, seen, seen, nil, false},
		{"asks under another address", func() []*corev1.Node {
			n := []*corev1.Node{full()[0], node("b", "ub", "b-01", "10.0.0.9"), full()[2]}
			n[1].Annotations[AnnotationRemove] = "true"
			return n
		}, seen, seen, nil, false},
		{"without its annotations", func() []*corev1.Node {
			return []*corev1.Node{full()[0], node("b", "ub", "", ""), full()[2]}
		}, seen, seen, nil, false},
		{"registered anew, not marked yet", func() []*corev1.Node {
			return []*corev1.Node{full()[0], node("b", "ub2", "", ""), full()[2]}
		}, seen, seen, nil, false},
		{"registered anew as the same member", func() []*corev1.Node {
			return []*corev1.Node{full()[0], node("b", "ub2", "b-01", "10.0.0.2"), full()[2]}
		}, seen, map[uint64]sighting{1: {"a", "ua"}, 2: {"b", "ub2"}, 3: {"c", "uc"}}, nil, false},
		{"replaced by another member's", func() []*corev1.Node {
			return []*corev1.Node{full()[0], node("b", "ub2", "b-02", "10.0.0.4"), full()[2]}
		}, seen, seen, []uint64{2}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, gone := compare(members, c.nodes(), c.seen)
			if !maps.Equal(next, c.next) {
				t.Errorf("seen: got %v, want %v", next, c.next)
			}
			var ids []uint64
			for _, d := range gone {
				ids = append(ids, d.member.ID)
				if d.requested != c.wishes {
					t.Errorf("member %d: requested %v", d.member.ID, d.requested)
				}
			}
			if !slices.Equal(ids, c.gone) {
				t.Errorf("to go: got %v, want %v", ids, c.gone)
			}
		})
	}
}

func TestMayGo(t *testing.T) {
	members := []*etcdserverpb.Member{voting(1, "a"), voting(2, "b"), voting(3, "c"), learning(4, "d")}
	for _, c := range []struct {
		name    string
		members []*etcdserverpb.Member
		up      []uint64
		id      uint64
		want    bool
	}{
		{"one of three healthy", members, []uint64{1, 2, 3}, 3, true},
		{"the dead one of three", members, []uint64{1, 2}, 3, true},
		{"a living one beside a dead one", members, []uint64{1, 2}, 2, false},
		{"a learner, always", members, []uint64{1}, 4, true},
		{"a learner is no support", members, []uint64{1, 4}, 3, false},
		{"one of two", members[:2], []uint64{1, 2}, 1, true},
		{"the last", members[:1], []uint64{1}, 1, false},
		{"the last voter beside a learner", []*etcdserverpb.Member{members[0], members[3]}, []uint64{1, 4}, 1, false},
	} {
		up := map[uint64]*clientv3.StatusResponse{}
		for _, id := range c.up {
			up[id] = &clientv3.StatusResponse{RaftAppliedIndex: id * 10}
		}
		if got := mayGo(c.members, up, c.id); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
		if c.name == "one of three healthy" {
			if a, b := successor(c.members, up, 3), successor(c.members, up, 1); a != 2 || b != 3 {
				t.Errorf("successors: got %d and %d, want those that are furthest", a, b)
			}
			if got := successor(c.members[:1], up, 1); got != 0 {
				t.Errorf("successor of the last: got %d", got)
			}
		}
	}
}

func TestCaughtUp(t *testing.T) {
	for _, c := range []struct {
		applied, last uint64
		want          bool
	}{{0, 0, false}, {0, 5, false}, {5, 5, true}, {9, 10, true}, {8, 10, false}, {90, 100, true}, {89, 100, false}} {
		if got := caughtUp(c.applied, c.last); got != c.want {
			t.Errorf("%d of %d: got %v", c.applied, c.last, got)
		}
	}
}

func TestVoter(t *testing.T) {
	status := func(leader uint64, learner bool) *clientv3.StatusResponse {
		return &clientv3.StatusResponse{Leader: leader, IsLearner: learner}
	}
	for _, c := range []struct {
		state  *clientv3.StatusResponse
		err    error
		status corev1.ConditionStatus
		reason string
	}{
		{status(1, false), nil, corev1.ConditionTrue, "MemberNotLearner"},
		{status(1, true), nil, corev1.ConditionFalse, "MemberIsLearner"},
		{status(0, false), nil, corev1.ConditionFalse, "Unhealthy"},
		{nil, errors.New("refused"), corev1.ConditionFalse, "Unhealthy"},
		{nil, fmt.Errorf("member 1: %w", ErrRemoved), corev1.ConditionFalse, "NotAMember"},
	} {
		if got := voter(c.state, c.err); got.Status != c.status || got.Reason != c.reason || got.Type != "EtcdIsVoter" || got.Message == "" {
			t.Errorf("%v, %v: got %+v", c.state, c.err, got)
		}
	}
}

func FuzzParseAddresses(f *testing.F) {
	f.Add([]byte("[\"10.0.0.1:6443\",\"[fd00::1]:6443\"]\n"))
	f.Add([]byte("[]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		addresses, err := parseAddresses(content)
		if err != nil {
			return
		}
		again, err := renderAddresses(addresses)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseAddresses(again); err != nil || !slices.Equal(got, addresses) {
			t.Errorf("%q became %q: %v", addresses, got, err)
		}
	})
}

func FuzzParseJoin(f *testing.F) {
	f.Add([]byte(`["https://10.0.0.1:2379"]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		endpoints, err := parseJoin("join", content)
		if err != nil {
			if !strings.Contains(err.Error(), "join") {
				t.Errorf("which file? %v", err)
			}
			return
		}
		for _, e := range endpoints {
			if _, err := authority(e); err != nil {
				t.Errorf("%q: %v", e, err)
			}
		}
	})
}
