package uevent

import (
	"bytes"
	"fmt"
	"strings"
)

// Lost is the action of an event that stands for events that were dropped: the
// subscriber must read the present state from /sys again.
const Lost = "keelson-lost"

// Event is one kernel uevent (lib/kobject_uevent.c: "ACTION@DEVPATH" and
// KEY=VALUE strings, each ended by a zero byte).
type Event struct {
	Action    string // add, remove, change, bind ...
	Devpath   string // below /sys
	Subsystem string
	Env       map[string]string
}

// Parse reads the bytes of one uevent message.
func Parse(b []byte) (Event, error) {
	head, rest, found := bytes.Cut(b, []byte{0})
	action, devpath, at := strings.Cut(string(head), "@")
	if !found || !at || action == "" || !strings.HasPrefix(devpath, "/") {
		return Event{}, fmt.Errorf("uevent %.40q: want ACTION@/DEVPATH", head)
	}
	ev := Event{Action: action, Devpath: devpath, Env: make(map[string]string, 8)}
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		if !ok {
			continue // the empty tail
		}
		ev.Env[key] = value
	}
	ev.Subsystem = ev.Env["SUBSYSTEM"]
	return ev, nil
}
