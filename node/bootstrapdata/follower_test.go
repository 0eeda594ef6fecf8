package bootstrapdata_test

import (
	"errors"
	"slices"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
)

// rotating is a store in the middle of a rotation.
func rotating(t *testing.T) (*storetest.Memory, bootstrapdata.Rotation) {
	t.Helper()
	s, _ := saved(t)
	if err := bootstrapdata.Rotate(t.Context(), s, "pass", "next", soon()); err != nil {
		t.Fatal(err)
	}
	r, ok, err := bootstrapdata.Rotating(t.Context(), s)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return s, r
}

func TestFollowed(t *testing.T) {
	s, r := rotating(t)
	lagging := func(want ...string) {
		t.Helper()
		got, err := bootstrapdata.Lagging(t.Context(), s, r, []string{"c", "a", "b-1", "b", "a"})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("lagging: got %q, %v, want %q", got, err, want)
		}
	}
	lagging("a", "b", "b-1", "c")
	for range 2 { // saying it again changes nothing
		for _, server := range []string{"b-1", "a"} {
			if err := bootstrapdata.Followed(t.Context(), s, r, server); err != nil {
				t.Fatal(err)
			}
		}
		lagging("b", "c")
	}
	if err := bootstrapdata.EndRotation(t.Context(), s, r); err != nil {
		t.Fatal(err)
	}
	if got := records(t, s); !slices.Equal(got, []string{bootstrapdata.Key("next")}) {
		t.Errorf("after its end the store holds %q", got)
	}
	// Who hears of it late notes nothing of a rotation that is over.
	if err := bootstrapdata.Followed(t.Context(), s, r, "c"); err != nil || len(records(t, s)) != 1 {
		t.Errorf("got %v, the store holds %q", err, records(t, s))
	}
}

// TestFollowersOfAnEarlierRotation: what a server said of the one before does not count for the next.
func TestFollowersOfAnEarlierRotation(t *testing.T) {
	s, r := rotating(t)
	if done, err := s.Commit(t.Context(), nil, []bootstrapdata.Record{{Key: bootstrapdata.FollowersPrefix + "a", Value: r.From}}, nil); err != nil || !done {
		t.Fatal(done, err)
	}
	if got, err := bootstrapdata.Lagging(t.Context(), s, r, []string{"a"}); err != nil || len(got) != 1 {
		t.Errorf("got %q, %v", got, err)
	}
	if err := bootstrapdata.Followed(t.Context(), s, r, "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := bootstrapdata.Lagging(t.Context(), s, r, []string{"a"}); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFollowersWithoutAStore(t *testing.T) {
	s, r := rotating(t)
	s.Err = errors.New("no majority")
	if err := bootstrapdata.Followed(t.Context(), s, r, "a"); !errors.Is(err, s.Err) {
		t.Errorf("followed: got %v", err)
	}
	if _, err := bootstrapdata.Lagging(t.Context(), s, r, nil); !errors.Is(err, s.Err) {
		t.Errorf("lagging: got %v", err)
	}
	if err := bootstrapdata.EndRotation(t.Context(), s, r); !errors.Is(err, s.Err) {
		t.Errorf("end: got %v", err)
	}
}
