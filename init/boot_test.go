package main

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"keelson/init/kmsg"
	"keelson/init/sequence"
)

func TestBootListIsSound(t *testing.T) {
	if err := sequence.Check(newMachine().boot()); err != nil {
		t.Error(err)
	}
}

func TestDamage(t *testing.T) {
	m := newMachine()
	record := kmsg.Record{Kernel: true, Text: "device-mapper: verity: 253:3: data block 7 is corrupted"}
	if err := m.damage(record); err != nil {
		t.Errorf("before the root is known: got %v", err)
	}
	m.rootName, m.rootDev = "/dev/vda3 (KEELSON-ROOT-A)", "253:3"
	want := "root partition /dev/vda3 (KEELSON-ROOT-A) is damaged: data block 7 is corrupted: nothing of it was executed; write the image to the disk again"
	if err := m.damage(record); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	record.Kernel = false
	if err := m.damage(record); err != nil {
		t.Errorf("written by a program: got %v", err)
	}
	if err := m.damage(kmsg.Record{Kernel: true, Text: "device-mapper: verity: 7:1: data block 7 is corrupted"}); err != nil {
		t.Errorf("another device: got %v", err)
	}
}

func TestParts(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	got := parts(errors.Join(a, errors.Join(b, c)))
	if !reflect.DeepEqual(got, []error{a, b, c}) {
		t.Errorf("got %v", got)
	}
	if got := oneLine(fmt.Errorf("x: %w", errors.Join(a, b))); got != "x: a; b" {
		t.Errorf("oneLine: got %q", got)
	}
}
