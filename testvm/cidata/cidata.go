// Package cidata makes NoCloud volumes: small disks labelled CIDATA that hold
// the user-data of one machine (cloud-init, doc/rtd/reference/datasources/nocloud.rst).
//
// Package machine attaches them; their contents come from the structs of this
// package or, for documents that are wrong on purpose, from bytes. It checks
// nothing that it is given: what is wrong with a document is for the machine
// to say.
package cidata

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"go.yaml.in/yaml/v3"
)

// Label of a NoCloud volume. FAT has no lower case; cloud-init takes both.
const Label = "CIDATA"

// Format is the volume's file system.
type Format string

// What cloud-init reads and what people's tools write.
const (
	FAT Format = "vfat"
	ISO Format = "iso9660"
)

// Volume is what a NoCloud volume holds. A nil document is not on the volume.
type Volume struct {
	UserData      []byte
	MetaData      []byte
	VendorData    []byte
	NetworkConfig []byte
}

// document is one file of a volume.
type document struct {
	name string
	data []byte
}

func (v Volume) documents() []document {
	var all []document
	for _, d := range []document{
		{"user-data", v.UserData}, {"meta-data", v.MetaData},
		{"vendor-data", v.VendorData}, {"network-config", v.NetworkConfig},
	} {
		if d.data != nil {
			all = append(all, d)
		}
	}
	return all
}

// CloudConfig is a user-data or vendor-data document.
type CloudConfig struct {
	Hostname   string         `yaml:"hostname,omitempty"`
	RKE2       map[string]any `yaml:"rke2,omitempty"`
	WriteFiles []File         `yaml:"write_files,omitempty"`
}

// File is an entry of write_files.
type File struct {
	Path        string `yaml:"path"`
	Content     string `yaml:"content"`
	Permissions string `yaml:"permissions,omitempty"`
}

// Render writes the document as cloud-init reads it.
func (c CloudConfig) Render() ([]byte, error) {
	body, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("render cloud-config: %w", err)
	}
	return append([]byte("#cloud-config\n"), body...), nil
}

// Meta is a meta-data document.
type Meta struct {
	InstanceID    string `yaml:"instance-id"`
	LocalHostname string `yaml:"local-hostname,omitempty"`
}

// Render writes the document.
func (m Meta) Render() ([]byte, error) {
	data, err := yaml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("render meta-data: %w", err)
	}
	return data, nil
}

// size of a volume: the least that is FAT16 with clusters of one sector, and
// holes on the host's disk for the most part.
const size = 16 << 20

// Write makes the volume in a new file at path.
func (v Volume) Write(path string, format Format) error {
	var err error
	switch format {
	case FAT:
		err = v.writeFAT(path)
	case ISO:
		err = v.writeISO(path)
	default:
		err = fmt.Errorf("format %q: want %s or %s", format, FAT, ISO)
	}
	if err != nil {
		return fmt.Errorf("write cidata volume %s: %w", path, err)
	}
	return nil
}

func (v Volume) writeFAT(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := file.CreateFromPath(path, size)
	if err != nil {
		return err
	}
	defer b.Close()
	fs, err := fat16.Create(b, size, 0, 512, Label, false)
	if err != nil {
		return err
	}
	if err := v.fill(fs); err != nil {
		return err
	}
	return fs.Close()
}

func (v Volume) writeISO(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	workspace, err := os.MkdirTemp(filepath.Dir(path), "cidata-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(workspace)
	b, err := file.CreateFromPath(path, size)
	if err != nil {
		return err
	}
	defer b.Close()
	fs, err := iso9660.Create(b, size, 0, 2048, workspace)
	if err != nil {
		return err
	}
	if err := v.fill(fs); err != nil {
		return err
	}
	return fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: Label})
}

func (v Volume) fill(fs filesystem.FileSystem) error {
	for _, d := range v.documents() {
		f, err := fs.OpenFile("/"+d.name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		// Hidden behind io.Reader: go-diskfs is slow with the small writes that
		// its own ReadFrom would make of it.
		if _, err := io.Copy(f, struct{ io.Reader }{bytes.NewReader(d.data)}); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}
