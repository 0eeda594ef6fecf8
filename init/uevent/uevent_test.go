package uevent

import (
	"context"
	"log/slog"
	"reflect"
	"strconv"
	"testing"
)

// recorded from a 6.12 kernel that found a partition.
const partition = "add@/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda3\x00ACTION=add\x00" +
	"DEVPATH=/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda3\x00SUBSYSTEM=block\x00MAJOR=254\x00MINOR=3\x00" +
	"DEVNAME=vda3\x00DEVTYPE=partition\x00DISKSEQ=9\x00PARTN=3\x00PARTNAME=KEELSON-ROOT-A\x00SEQNUM=1021\x00"

func TestParse(t *testing.T) {
	cases := []struct {
		name, in string
		want     Event
		wantErr  bool
	}{
		{name: "partition", in: partition, want: Event{
			Action: "add", Devpath: "/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda3", Subsystem: "block",
			Env: map[string]string{"ACTION": "add", "DEVPATH": "/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda3",
				"SUBSYSTEM": "block", "MAJOR": "254", "MINOR": "3", "DEVNAME": "vda3", "DEVTYPE": "partition",
				"DISKSEQ": "9", "PARTN": "3", "PARTNAME": "KEELSON-ROOT-A", "SEQNUM": "1021"},
		}},
		{name: "no fields", in: "remove@/module/x\x00", want: Event{Action: "remove", Devpath: "/module/x", Env: map[string]string{}}},
		{name: "value with equals sign", in: "add@/x\x00A=b=c\x00", want: Event{Action: "add", Devpath: "/x", Env: map[string]string{"A": "b=c"}}},
		{name: "udev's own message", in: "libudev\x00\xfe\xed\xca\xfe", wantErr: true},
		{name: "no end", in: "add@/x", wantErr: true},
		{name: "no action", in: "@/x\x00", wantErr: true},
		{name: "empty", in: "", wantErr: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse([]byte(c.in))
			if (err != nil) != c.wantErr {
				t.Fatalf("error: got %v, want one: %v", err, c.wantErr)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(partition))
	f.Add([]byte("add@/x\x00\x00=\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, err := Parse(b)
		if err == nil && (ev.Action == "" || ev.Devpath == "" || ev.Env == nil) {
			t.Errorf("%q: accepted as %+v", b, ev)
		}
	})
}

func TestSubscriptionFiltersAndKeepsOrder(t *testing.T) {
	l := &Listener{log: slog.New(slog.DiscardHandler)}
	block, all := l.Subscribe("block"), l.Subscribe("")
	for i := range 3 {
		l.send(Event{Action: "add", Subsystem: "net", Devpath: "/n" + strconv.Itoa(i)})
		l.send(Event{Action: "add", Subsystem: "block", Devpath: "/b" + strconv.Itoa(i)})
	}
	ctx := context.Background()
	for i := range 3 {
		ev, err := block.Next(ctx)
		if err != nil || ev.Devpath != "/b"+strconv.Itoa(i) {
			t.Fatalf("block event %d: got %+v, %v", i, ev, err)
		}
	}
	if got := len(all.queue); got != 6 {
		t.Errorf("subscriber of everything: got %d events, want 6", got)
	}
	all.Close()
	l.send(Event{Action: "add"})
	if got := len(all.queue); got != 6 {
		t.Errorf("closed subscription: got %d events, want 6 as before", got)
	}
}

func TestSubscriptionOverflowSaysLost(t *testing.T) {
	s := newSubscription("block")
	for range maxQueue + 1 {
		s.put(Event{Action: "add", Subsystem: "block"})
	}
	ev, err := s.Next(context.Background())
	if err != nil || ev.Action != Lost {
		t.Fatalf("first event after an overflow: got %+v, %v, want %s", ev, err, Lost)
	}
	if ev, err = s.Next(context.Background()); err != nil || ev.Action != "add" {
		t.Errorf("event that caused it: got %+v, %v", ev, err)
	}
}

func TestNextEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newSubscription("").Next(ctx); err == nil {
		t.Error("got no error from an ended context")
	}
}

// Run must come back although nothing arrives on the socket.
func TestRunEndsWithContext(t *testing.T) {
	l, err := Listen(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skipf("no uevent socket here: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run after cancel: got %v, want nil", err)
	}
}
