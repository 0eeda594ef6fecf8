package bootstrapdata

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// FollowersPrefix begins the keys by which servers tell that they have taken a rotation's token over: the server's name
// follows, the value is the rotation's To. Who reads them learns no more than from the record's own key.
const FollowersPrefix = "/keelson/token-followers/"

// Followed notes that a server has the token after the rotation on its disk. Where the rotation has ended meanwhile it
// notes nothing.
func Followed(ctx context.Context, s Transactor, r Rotation, server string) error {
	key := FollowersPrefix + server
	all, err := s.List(ctx, key)
	if err != nil {
		return fmt.Errorf("tell that the token is taken over: %w", err)
	}
	var have Record
	for _, one := range all {
		if one.Key == key {
			have = one
		}
	}
	if have.Value == r.To {
		return nil
	}
	_, err = s.Commit(ctx, []Record{{Key: RotationKey, Revision: r.revision}, {Key: key, Revision: have.Revision}}, []Record{{Key: key, Value: r.To}}, nil)
	if err != nil {
		return fmt.Errorf("tell that the token is taken over: %w", err)
	}
	return nil
}

// Lagging gives those of servers that have not told so.
func Lagging(ctx context.Context, s Store, r Rotation, servers []string) ([]string, error) {
	all, err := s.List(ctx, FollowersPrefix)
	if err != nil {
		return nil, fmt.Errorf("look who has taken the token over: %w", err)
	}
	var late []string
	for _, server := range servers {
		if !slices.ContainsFunc(all, func(one Record) bool {
			return strings.TrimPrefix(one.Key, FollowersPrefix) == server && one.Value == r.To
		}) {
			late = append(late, server)
		}
	}
	slices.Sort(late)
	return slices.Compact(late), nil
}
