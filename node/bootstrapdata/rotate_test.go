package bootstrapdata_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/token"
)

func soon() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }

// saved is a store with the record of a server whose token is "pass".
func saved(t *testing.T) (*storetest.Memory, string) {
	t.Helper()
	s := &storetest.Memory{}
	dir := server(t)
	write(t, filepath.Join(dir, "cred/passwd"), "pass,node,node,rke2:agent\npass,server,server,rke2:server\nx,extra,extra,g\n")
	sync(t, s, dir)
	return s, dir
}

// records are the keys of the store, without the seal, which goes with every record.
func records(t *testing.T, s bootstrapdata.Store) []string {
	t.Helper()
	all, err := s.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range all {
		if r.Key != bootstrapdata.SealKey {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

func TestRotate(t *testing.T) {
	ctx := t.Context()
	s, dir := saved(t)
	if err := bootstrapdata.Rotate(ctx, s, "pass", "next", soon()); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(records(t, s)), fmt.Sprint([]string{bootstrapdata.Key("next"), bootstrapdata.RotationKey}); got != want {
		t.Errorf("the store holds %s, want %s", got, want)
	}
	for _, password := range []token.Secret{"pass", "next"} {
		d, err := bootstrapdata.Load(ctx, s, password)
		if err != nil {
			t.Fatalf("%s: %v", password.Reveal(), err)
		}
		if got := string(d["PasswdFile"].Content); got != "next,node,node,rke2:agent\nnext,server,server,rke2:server\nx,extra,extra,g\n" {
			t.Errorf("%s: the password file in the record is %q", password.Reveal(), got)
		}
		if got := string(d["ServerCAKey"].Content); got != "ServerCAKey" || d.Generation() != 2 {
			t.Errorf("%s: got %q, generation %d", password.Reveal(), got, d.Generation())
		}
		if saved, err := bootstrapdata.Save(ctx, s, password, d); err != nil || saved {
			t.Errorf("%s: saved beside it: %v, %v", password.Reveal(), saved, err)
		}
		// A server that has not heard of it, or has just joined, starts all the same.
		if _, err := bootstrapdata.Sync(ctx, s, password, t.TempDir()); err != nil {
			t.Errorf("%s: an empty server: %v", password.Reveal(), err)
		}
		if wrote, err := bootstrapdata.Sync(ctx, s, password, dir); err != nil || len(wrote) != 0 {
			t.Errorf("%s: a server: wrote %v, %v", password.Reveal(), wrote, err)
		}
	}
	for _, password := range []token.Secret{"pass", "next"} {
		if _, err := bootstrapdata.Replace(ctx, s, password, rotate("ca of "+password.Reveal())); err != nil {
			t.Errorf("%s: replace: %v", password.Reveal(), err)
		}
	}
	if d, err := bootstrapdata.Load(ctx, s, "pass"); err != nil || string(d["ServerCA"].Content) != "ca of next" {
		t.Errorf("what was changed during the rotation: %q, %v", d["ServerCA"].Content, err)
	}
	if _, err := bootstrapdata.Load(ctx, s, "guess"); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("another token: got %v", err)
	}

	r, ok, err := bootstrapdata.Rotating(ctx, s)
	if err != nil || !ok || !r.Expires.Equal(soon()) {
		t.Fatalf("got %v, %v, %v", r, ok, err)
	}
	if next, err := r.New("pass"); err != nil || next != "next" {
		t.Errorf("new: got %q, %v", next.Reveal(), err)
	}
	if old, err := r.Old("next"); err != nil || old != "pass" {
		t.Errorf("old: got %q, %v", old.Reveal(), err)
	}
	for _, wrong := range []token.Secret{"", "guess"} {
		if _, err := r.New(wrong); !errors.Is(err, bootstrapdata.ErrPassword) {
			t.Errorf("new, by %q: got %v", wrong.Reveal(), err)
		}
		if _, err := r.Old(wrong); !errors.Is(err, bootstrapdata.ErrPassword) {
			t.Errorf("old, by %q: got %v", wrong.Reveal(), err)
		}
	}
	if err := bootstrapdata.EndRotation(ctx, s, r); err != nil {
		t.Fatal(err)
	}
	if got := records(t, s); len(got) != 1 || got[0] != bootstrapdata.Key("next") {
		t.Errorf("in the end the store holds %v", got)
	}
	if _, err := bootstrapdata.Load(ctx, s, "pass"); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("the token before, after the end: got %v", err)
	}
	if err := bootstrapdata.EndRotation(ctx, s, r); err != nil {
		t.Errorf("end again: %v", err)
	}
}

func TestRotateAgentToken(t *testing.T) {
	s := &storetest.Memory{}
	dir := server(t)
	write(t, filepath.Join(dir, "cred/passwd"), "agents,node,node,rke2:agent\npass,server,server,rke2:server\n")
	sync(t, s, dir)
	if err := bootstrapdata.Rotate(t.Context(), s, "pass", "next", soon()); err != nil {
		t.Fatal(err)
	}
	d, err := bootstrapdata.Load(t.Context(), s, "next")
	if err != nil || string(d["PasswdFile"].Content) != "agents,node,node,rke2:agent\nnext,server,server,rke2:server\n" {
		t.Errorf("got %q, %v", d["PasswdFile"].Content, err)
	}
}

func TestRotateRefusals(t *testing.T) {
	ctx := t.Context()
	s, _ := saved(t)
	if err := bootstrapdata.Rotate(ctx, s, "guess", "next", soon()); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("wrong token: got %v", err)
	}
	if err := bootstrapdata.Rotate(ctx, &storetest.Memory{}, "pass", "next", soon()); !errors.Is(err, bootstrapdata.ErrNone) {
		t.Errorf("no record: got %v", err)
	}
	if err := bootstrapdata.Rotate(ctx, s, "pass", "next", soon()); err != nil {
		t.Fatal(err)
	}
	if err := bootstrapdata.Rotate(ctx, s, "pass", "next", soon()); err != nil {
		t.Errorf("again: %v", err)
	}
	for _, p := range [][2]token.Secret{{"next", "third"}, {"pass", "third"}, {"next", "pass"}} {
		if err := bootstrapdata.Rotate(ctx, s, p[0], p[1], soon()); !errors.Is(err, bootstrapdata.ErrRotating) || !strings.Contains(err.Error(), "2030-01-02T03:04:05Z") {
			t.Errorf("%s to %s meanwhile: got %v", p[0].Reveal(), p[1].Reveal(), err)
		}
	}
	down := errors.New("down")
	s.Err = down
	for name, err := range map[string]error{
		"rotate": bootstrapdata.Rotate(ctx, s, "pass", "next", soon()),
		"end":    bootstrapdata.EndRotation(ctx, s, bootstrapdata.Rotation{}),
		"look":   func() error { _, _, err := bootstrapdata.Rotating(ctx, s); return err }(),
	} {
		if !errors.Is(err, down) {
			t.Errorf("%s without the store: got %v", name, err)
		}
	}
	s, _ = saved(t)
	if _, err := bootstrapdata.Replace(ctx, s, "pass", func(d bootstrapdata.Data) (bootstrapdata.Data, error) {
		d["PasswdFile"] = bootstrapdata.File{Content: []byte("x\n")}
		return d, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := bootstrapdata.Rotate(ctx, s, "pass", "next", soon()); err == nil || !strings.Contains(err.Error(), "row 1") {
		t.Errorf("a broken password file: got %v", err)
	}
	if got := records(t, s); len(got) != 1 || got[0] != bootstrapdata.Key("pass") {
		t.Errorf("a rotation that was refused has left %v", got)
	}
}

// raced is a store in which another server does something between our look and our commit.
type raced struct {
	*storetest.Memory
	first func()
}

func (r *raced) Commit(ctx context.Context, expect, put []bootstrapdata.Record, remove []string) (bool, error) {
	if first := r.first; first != nil {
		r.first = nil
		first()
	}
	return r.Memory.Commit(ctx, expect, put, remove)
}

func TestTwoServersRotateAtOnce(t *testing.T) {
	ctx := t.Context()
	s, _ := saved(t)
	err := bootstrapdata.Rotate(ctx, &raced{s, func() {
		if err := bootstrapdata.Rotate(ctx, s, "pass", "theirs", soon()); err != nil {
			t.Error(err)
		}
	}}, "pass", "ours", soon())
	if !errors.Is(err, bootstrapdata.ErrRotating) {
		t.Errorf("got %v", err)
	}
	if _, err := bootstrapdata.Load(ctx, s, "theirs"); err != nil {
		t.Errorf("the first: %v", err)
	}
	// A record that is only written anew meanwhile is rotated with what it then holds.
	s, _ = saved(t)
	if err := bootstrapdata.Rotate(ctx, &raced{s, func() {
		if _, err := bootstrapdata.Replace(ctx, s, "pass", rotate("meanwhile")); err != nil {
			t.Error(err)
		}
	}}, "pass", "ours", soon()); err != nil {
		t.Fatal(err)
	}
	if d, err := bootstrapdata.Load(ctx, s, "ours"); err != nil || string(d["ServerCA"].Content) != "meanwhile" || d.Generation() != 3 {
		t.Errorf("got %q of generation %d, %v", d["ServerCA"].Content, d.Generation(), err)
	}
}

func TestBrokenRotationIsNotFollowed(t *testing.T) {
	ctx := t.Context()
	for name, value := range map[string]string{
		"empty": "", "no JSON": "{", "nothing in it": "{}",
		"to itself":        `{"from":"/bootstrap/a","to":"/bootstrap/a","expires":"2030-01-01T00:00:00Z","old":"x","new":"x"}`,
		"sealed by nobody": `{"from":"` + bootstrapdata.Key("old") + `","to":"` + bootstrapdata.Key("pass") + `","expires":"2030-01-01T00:00:00Z","old":"a:AAAA","new":"a:AAAA"}`,
	} {
		s, _ := saved(t)
		if _, err := s.Put(ctx, bootstrapdata.RotationKey, value, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := bootstrapdata.Load(ctx, s, "pass"); err != nil {
			t.Errorf("%s: the record's own token: %v", name, err)
		}
		if _, err := bootstrapdata.Load(ctx, s, "old"); !errors.Is(err, bootstrapdata.ErrOtherToken) {
			t.Errorf("%s: another: %v", name, err)
		}
		if _, ok, err := bootstrapdata.Rotating(ctx, s); name != "sealed by nobody" && (ok || !errors.Is(err, bootstrapdata.ErrRotation)) {
			t.Errorf("%s: got %v, %v", name, ok, err)
		}
	}
}

// TestRotationTellsNoToken in clear.
func TestRotationTellsNoToken(t *testing.T) {
	s, _ := saved(t)
	if err := bootstrapdata.Rotate(t.Context(), s, "pass", "very-new-token", soon()); err != nil {
		t.Fatal(err)
	}
	all, err := s.List(t.Context(), bootstrapdata.RotationKey)
	if err != nil || len(all) != 1 || strings.Contains(all[0].Value, "very-new-token") || strings.Contains(all[0].Value, `"pass"`) {
		t.Errorf("got %v, %v", all, err)
	}
	r, _, err := bootstrapdata.Rotating(t.Context(), s)
	if err != nil || strings.Contains(fmt.Sprintf("%v %#v", r, r), "very-new-token") {
		t.Errorf("printed, %v", err)
	}
}

func TestMemoryIsATransactor(t *testing.T) { storetest.RunTransactor(t, &storetest.Memory{}) }
