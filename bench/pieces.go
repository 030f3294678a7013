package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pieces are what a durable record costs on this disk: each verb writes one, and
// returns when it would survive a power cut.
func pieces(dir string, s *samples) error {
	dir = filepath.Join(dir, "pieces")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	record := make([]byte, 1500)
	for range 100 {
		if err := piece(dir, record, s); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond) // verbs do not come one upon another
	}
	return os.RemoveAll(dir)
}

func piece(dir string, record []byte, s *samples) error {
	f, err := os.Create(filepath.Join(dir, "new"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(record); err != nil {
		return err
	}
	began := time.Now()
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return err
	}
	s.time(1, time.Since(began), "Piece", "sync", "file")
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	began = time.Now()
	err = errors.Join(os.Rename(f.Name(), filepath.Join(dir, "record")), d.Sync())
	s.time(1, time.Since(began), "Piece", "sync", "name")
	return errors.Join(err, d.Close())
}
