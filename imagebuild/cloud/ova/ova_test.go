package ova

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/cloud/diskfixture"
)

func machine() Machine {
	return Machine{Name: "keelson-amd64", Version: `1 <"&">`, Capacity: 412 << 20, CPUs: 2, Memory: 4096}
}

func write(t *testing.T, disk []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, machine(), bytes.NewReader(disk), int64(len(disk)), time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchive(t *testing.T) {
	disk := diskfixture.Disk(3<<20 + 100)
	files := map[string][]byte{}
	var order []string
	r := tar.NewReader(bytes.NewReader(write(t, disk)))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Format != tar.FormatUSTAR || h.Mode != 0o644 || h.Uid != 0 {
			t.Errorf("%s: header %+v, want ustar, root's, 0644", h.Name, h)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		order = append(order, h.Name)
	}
	if got := strings.Join(order, " "); got != "keelson-amd64.ovf keelson-amd64.mf keelson-amd64-disk1.vmdk" {
		t.Errorf("files: got %s", got)
	}
	if !bytes.Equal(files["keelson-amd64-disk1.vmdk"], disk) {
		t.Error("the disk inside is another")
	}
	for _, name := range []string{"keelson-amd64.ovf", "keelson-amd64-disk1.vmdk"} {
		if line := fmt.Sprintf("SHA256(%s)= %x\n", name, sha256.Sum256(files[name])); !strings.Contains(string(files["keelson-amd64.mf"]), line) {
			t.Errorf("manifest lacks %s:\n%s", line, files["keelson-amd64.mf"])
		}
	}
}

func TestDescription(t *testing.T) {
	text, err := describe(machine(), "keelson-amd64-disk1.vmdk", 12345)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		File struct {
			Href string `xml:"href,attr"`
			Size int64  `xml:"size,attr"`
			ID   string `xml:"id,attr"`
		} `xml:"References>File"`
		Disk struct {
			Capacity int64  `xml:"capacity,attr"`
			File     string `xml:"fileRef,attr"`
			ID       string `xml:"diskId,attr"`
		} `xml:"DiskSection>Disk"`
		Version string `xml:"VirtualSystem>ProductSection>FullVersion"`
		Items   []struct {
			Type     int    `xml:"ResourceType"`
			Quantity int    `xml:"VirtualQuantity"`
			Host     string `xml:"HostResource"`
			ID       int    `xml:"InstanceID"`
			Parent   int    `xml:"Parent"`
		} `xml:"VirtualSystem>VirtualHardwareSection>Item"`
	}
	if err := xml.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.File.Href != "keelson-amd64-disk1.vmdk" || got.File.Size != 12345 || got.Disk.Capacity != 412<<20 || got.Disk.File != got.File.ID {
		t.Errorf("disk: got %+v of %+v", got.Disk, got.File)
	}
	if got.Version != machine().Version {
		t.Errorf("version: got %q, want %q", got.Version, machine().Version)
	}
	quantity, ids := map[int]int{}, map[int]int{}
	for _, item := range got.Items {
		quantity[item.Type] = item.Quantity
		ids[item.ID] = item.Type
		if item.Type == 17 && (item.Host != "ovf:/disk/"+got.Disk.ID || ids[item.Parent] != 6) {
			t.Errorf("the disk hangs on nothing: %+v", item)
		}
	}
	if quantity[3] != 2 || quantity[4] != 4096 || len(ids) != len(got.Items) {
		t.Errorf("hardware: got %+v", got.Items)
	}
}

func TestTarAndReproducible(t *testing.T) {
	disk := diskfixture.Disk(1 << 20)
	a := write(t, disk)
	if !bytes.Equal(a, write(t, disk)) {
		t.Error("two archives of the same disk differ")
	}
	if out := diskfixture.Tool(t, "tar", "tar", "-tf", diskfixture.File(t, "m.ova", a)); strings.Count(out, "\n") != 3 {
		t.Errorf("tar -t: %s", out)
	}
}

func TestShortDisk(t *testing.T) {
	err := Write(io.Discard, machine(), bytes.NewReader([]byte{1}), 2, time.Time{})
	if err == nil || !strings.Contains(err.Error(), "disk1.vmdk") {
		t.Errorf("Write of a disk that is too short: got %v", err)
	}
}
