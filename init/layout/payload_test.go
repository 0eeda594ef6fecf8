package layout

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
)

func payload() *Payload {
	sum := strings.Repeat("ab", 32)
	return &Payload{
		Version: "1", BootCode: base64.StdEncoding.EncodeToString([]byte("boot")),
		Partitions: []PayloadPartition{
			{Number: NumberBIOS, Label: LabelBIOS, Type: TypeBIOSBoot, Size: BIOSSize, Length: 1000, SHA256: sum, Extents: []PayloadExtent{{From: NumberBIOS, Length: 1000}}},
			{Number: NumberESP, Label: LabelESP, Type: TypeESP, Size: ESPSize, Length: ESPSize, SHA256: sum,
				Extents: []PayloadExtent{{From: NumberPayload, Length: 512}, {From: NumberESP, Offset: 4096, Length: 512, To: 512}}},
			{Number: NumberRootA, Label: LabelRootA, Type: TypeRootAMD64, Attributes: AttrRoot, Size: 4 << 20, Length: 4 << 20, SHA256: sum,
				Extents: []PayloadExtent{{From: NumberLive, Length: 4 << 20}}},
		},
	}
}

func TestPayload(t *testing.T) {
	head, err := RenderPayload(payload())
	if err != nil {
		t.Fatal(err)
	}
	got, data, err := ParsePayload(append(head, "data"...))
	if err != nil || !reflect.DeepEqual(got, payload()) || data != int64(len(head)) || data%PayloadAlign != 0 {
		t.Errorf("got %+v, data at %d, %v; want what was rendered, data at %d", got, data, err, len(head))
	}
	if code, err := got.Boot(); err != nil || string(code) != "boot" {
		t.Errorf("boot code: got %q, %v", code, err)
	}
}

func TestPayloadRefuses(t *testing.T) {
	for name, change := range map[string]func(*Payload){
		"boot code":            func(p *Payload) { p.BootCode = base64.StdEncoding.EncodeToString(make([]byte, 441)) },
		"no base64":            func(p *Payload) { p.BootCode = "!" },
		"no partitions":        func(p *Payload) { p.Partitions = nil },
		"order":                func(p *Payload) { p.Partitions[0].Number = NumberRootA },
		"no root":              func(p *Payload) { p.Partitions = p.Partitions[:2] },
		"foreign label":        func(p *Payload) { p.Partitions[1].Label = "data" },
		"size":                 func(p *Payload) { p.Partitions[1].Size++ },
		"content too long":     func(p *Payload) { p.Partitions[0].Length = BIOSSize + 1 },
		"sum":                  func(p *Payload) { p.Partitions[0].SHA256 = "ab" },
		"extent behind":        func(p *Payload) { p.Partitions[0].Extents[0].To = 1 },
		"extent negative":      func(p *Payload) { p.Partitions[0].Extents[0].Offset = -1 },
		"extent empty":         func(p *Payload) { p.Partitions[0].Extents[0].Length = 0 },
		"extents out of order": func(p *Payload) { p.Partitions[1].Extents[1].To = 511 },
		"unknown source":       func(p *Payload) { p.Partitions[0].Extents[0].From = 5 },
		"overflow":             func(p *Payload) { p.Partitions[0].Extents[0].To = 1<<63 - 1 },
		"head too large":       func(p *Payload) { p.Version = strings.Repeat("x", MaxPayloadHead) },
	} {
		p := payload()
		change(p)
		if _, err := RenderPayload(p); err == nil || !strings.HasPrefix(err.Error(), "payload: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "other": "something else\n{}\n", "length": payloadMagic + "9\n{}\n", "no JSON": payloadMagic + "2\n{\n\n\n",
		"unknown field": payloadMagic + "11\n{\"later\":1}\n\n", "negative": payloadMagic + "-1\n{}\n",
	} {
		if _, _, err := ParsePayload([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParsePayload(f *testing.F) {
	head, err := RenderPayload(payload())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Add([]byte(payloadMagic + "2\n{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, data, err := ParsePayload(b)
		if err != nil {
			return
		}
		if data <= 0 || data%PayloadAlign != 0 {
			t.Errorf("data at %d", data)
		}
		for _, part := range p.Partitions {
			for _, e := range part.Extents {
				if e.To < 0 || e.To+e.Length > part.Length || part.Length > part.Size || e.Offset+e.Length < 0 {
					t.Errorf("extent %+v of %+v", e, part)
				}
			}
		}
	})
}
