package service

import (
	"fmt"
	"os"
	"sync"
)

// LogFile is a file that never grows beyond a bound: at half of it the file
// becomes NAME.1 in place of the older one, and a new one begins.
type LogFile struct {
	path  string
	limit int64

	mu     sync.Mutex
	file   *os.File
	size   int64
	closed bool
}

// OpenLogFile continues a log. limit bounds both files together.
func OpenLogFile(path string, limit int64) (*LogFile, error) {
	l := &LogFile{path: path, limit: limit / 2}
	return l, l.open()
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write appends whole lines; a rotation falls between two writes.
func (l *LogFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, os.ErrClosed
	}
	if l.file == nil || l.size > 0 && l.size+int64(len(b)) > l.limit {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

func (l *LogFile) rotate() error {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("rotate log: %w", err)
	}
	return l.open()
}

// Close ends the log: what is written later is dropped.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
