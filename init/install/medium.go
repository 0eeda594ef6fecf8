package install

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"keelson/init/blockdev"
	"keelson/init/layout"
)

// Medium is what the machine runs from, and installs from.
type Medium struct {
	Payload *layout.Payload

	dev  string
	find func(number int) (blockdev.Partition, error)
	data int64 // where the payload's own data begins
	open map[int]*os.File
	at   map[int]*io.SectionReader
}

// OpenMedium reads the payload of a medium. find knows its partitions, dev is the folder of the device nodes.
func OpenMedium(dev string, find func(number int) (blockdev.Partition, error)) (*Medium, error) {
	m := &Medium{dev: dev, find: find, open: map[int]*os.File{}, at: map[int]*io.SectionReader{}}
	if err := m.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("this medium cannot install a disk: %w", err), m.Close())
	}
	return m, nil
}

func (m *Medium) read() error {
	r, err := m.partition(layout.NumberPayload)
	if err != nil {
		return err
	}
	head := make([]byte, min(r.Size(), layout.MaxPayloadHead))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", layout.LabelPayload, err)
	}
	m.Payload, m.data, err = layout.ParsePayload(head)
	return err
}

// Source reads one of its partitions; that of the payload behind its head.
func (m *Medium) Source(number int) (io.ReaderAt, error) {
	r, err := m.partition(number)
	if err != nil || number != layout.NumberPayload {
		return r, err
	}
	return io.NewSectionReader(r, m.data, max(0, r.Size()-m.data)), nil
}

func (m *Medium) partition(number int) (*io.SectionReader, error) {
	if r := m.at[number]; r != nil {
		return r, nil
	}
	p, err := m.find(number)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(m.dev, p.Name))
	if err != nil {
		return nil, fmt.Errorf("open the medium: %w", err)
	}
	start := int64(0)
	if p.Undivided {
		start = int64(p.Start)
	}
	m.open[number], m.at[number] = f, io.NewSectionReader(f, start, int64(p.Size))
	return m.at[number], nil
}

// Close lets go of the medium.
func (m *Medium) Close() error {
	var errs []error
	for _, f := range m.open {
		errs = append(errs, f.Close())
	}
	m.open, m.at = nil, nil
	return errors.Join(errs...)
}
