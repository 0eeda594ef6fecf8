// Package ova puts a VMDK into an OVA: a tar of the machine's description
// (OVF), a manifest of hashes and the disk, in this order, which importers
// that read from front to back need. Equal disks give equal bytes.
//
// Formats: DMTF DSP0243 (OVF 1.1); the keys vmw: are VMware's own.
package ova

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"text/template"
	"time"
)

// Machine is what the OVF describes.
type Machine struct {
	Name     string // of the machine, and of the files inside
	Version  string
	Capacity int64 // bytes of the disk as the guest sees it
	CPUs     int
	Memory   int // MiB
}

// Write writes the OVA. disk is the VMDK of length bytes; it is read twice.
func Write(w io.Writer, m Machine, disk io.ReaderAt, length int64, modified time.Time) error {
	diskName := m.Name + "-disk1.vmdk"
	text, err := describe(m, diskName, length)
	if err != nil {
		return fmt.Errorf("ova: %w", err)
	}
	h := sha256.New()
	buf := make([]byte, 1<<20)
	if _, err := io.CopyBuffer(h, reader(disk, length), buf); err != nil {
		return fmt.Errorf("ova: %w", err)
	}
	manifest := fmt.Sprintf("SHA256(%s.ovf)= %x\nSHA256(%s)= %x\n", m.Name, sha256.Sum256(text), diskName, h.Sum(nil))
	t := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		size int64
		data io.Reader
	}{
		{m.Name + ".ovf", int64(len(text)), bytes.NewReader(text)},
		{m.Name + ".mf", int64(len(manifest)), bytes.NewReader([]byte(manifest))},
		{diskName, length, reader(disk, length)},
	} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: f.size, Mode: 0o644, ModTime: modified, Format: tar.FormatUSTAR}); err != nil {
			return fmt.Errorf("ova: %w", err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{t}, f.data, buf)
		if err == nil && n < f.size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("ova: %s: %w", f.name, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("ova: %w", err)
	}
	return nil
}

// reader hides all but Read, so that the caller's buffer is used.
func reader(r io.ReaderAt, size int64) io.Reader {
	return struct{ io.Reader }{io.NewSectionReader(r, 0, size)}
}

// describe renders the OVF: UEFI, a paravirtual disk controller and a VMXNET3
// card, for all of which every kernel of ours has drivers.
func describe(m Machine, diskName string, length int64) ([]byte, error) {
	t, err := template.New("ovf").Funcs(template.FuncMap{"xml": func(s string) (string, error) {
		var b bytes.Buffer
		err := xml.EscapeText(&b, []byte(s))
		return b.String(), err
	}}).Parse(ovf)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		Machine
		Disk   string
		Length int64
	}{m, diskName, length})
	return b.Bytes(), err
}

const ovf = `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href="{{.Disk | xml}}" ovf:size="{{.Length}}"/>
  </References>
  <DiskSection>
    <Info>Disks of the machine</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{{.Capacity}}" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks of the machine</Info>
    <Network ovf:name="VM Network">
      <Description>Where it is reached</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{{.Name | xml}}">
    <Info>One node</Info>
    <Name>{{.Name | xml}}</Name>
    <ProductSection>
      <Info>What runs on it</Info>
      <Product>Keelson</Product>
      <FullVersion>{{.Version | xml}}</FullVersion>
    </ProductSection>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest">
      <Info>Linux, 64 bit</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware of the machine</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{{.Name | xml}}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>{{.CPUs}} virtual CPUs</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{{.CPUs}}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>{{.Memory}} MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{{.Memory}}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SCSI controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>7</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>VM Network</rasd:Connection>
        <rasd:ElementName>Network card</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`
