package store

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrFull is the error of Put while the disk is full. The store serves readers, and takes events again by itself when
	// there is space.
	ErrFull = errors.New("the disk is full")

	// ErrReadOnly is the error of Put when the directory could not be written to when the store was opened.
	ErrReadOnly = errors.New("the directory of the events cannot be written to")
)

const (
	// reserve is how much of the disk is left free: for what the engine writes by itself, and for the user's small files.
	reserve = 32 << 20

	spaceEvery = time.Second            // between looks at the free space
	retryEvery = 200 * time.Millisecond // of a write that found the disk full
)

// disk is the file system of the engine. To the engine a disk is never full: it knows no way back from a failed write.
// Writes wait until there is space again, and meanwhile the store refuses new events.
type disk struct {
	vfs.FS
	dir      string
	readOnly bool
	stop     chan struct{} // closed when the store gives up waiting

	mu     sync.Mutex // guards the fields below
	full   bool
	lacks  chan struct{} // closed while the disk is full
	looked time.Time
}

func newDisk(files vfs.FS, dir string) *disk {
	return &disk{FS: files, dir: dir, stop: make(chan struct{}), lacks: make(chan struct{})}
}

// set says whether the disk is full.
func (d *disk) set(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case full && !d.full:
		close(d.lacks)
	case !full && d.full:
		d.lacks = make(chan struct{})
	}
	d.full = full
}

func (d *disk) isFull() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full
}

// whenFull returns a channel that is closed when the disk is full, or becomes so.
func (d *disk) whenFull() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lacks
}

// look looks at the free space, at most once a second, and returns ErrFull when it is less than the reserve. Where a
// system does not tell, there is always enough.
func (d *disk) look() error {
	d.mu.Lock()
	due := time.Since(d.looked) >= spaceEvery
	if due {
		d.looked = time.Now()
	}
	d.mu.Unlock()
	if due {
		if usage, err := d.GetDiskUsage(d.dir); err == nil {
			d.set(usage.AvailBytes < reserve)
		}
	}
	if d.isFull() {
		return ErrFull
	}
	return nil
}

// wait returns false when err is not that the disk is full, or when the store closes.
func (d *disk) wait(err error) bool {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, errQuota) {
		return false
	}
	d.set(true)
	select {
	case <-d.stop:
		return false
	case <-time.After(retryEvery):
		return true
	}
}

// try repeats do as long as the disk is full.
func (d *disk) try(do func() error) error {
	waited := false
	for {
		err := do()
		if err != nil && d.wait(err) {
			waited = true
			continue
		}
		if waited && err == nil {
			d.set(false)
		}
		return err
	}
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = d.try(func() (err error) { f, err = d.FS.Create(name, c); return err })
	return d.file(f), err
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = d.try(func() (err error) { f, err = d.FS.OpenReadWrite(name, c, opts...); return err })
	return d.file(f), err
}

func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = d.try(func() (err error) { f, err = d.FS.ReuseForWrite(old, name, c); return err })
	return d.file(f), err
}

func (d *disk) Link(old, name string) error {
	return d.try(func() error { return d.FS.Link(old, name) })
}

func (d *disk) Rename(old, name string) error {
	return d.try(func() error { return d.FS.Rename(old, name) })
}

// Lock needs a file that can be written; a directory that cannot be has nobody else who writes.
func (d *disk) Lock(name string) (io.Closer, error) {
	l, err := d.FS.Lock(name)
	if err != nil && d.readOnly {
		return io.NopCloser(nil), nil
	}
	return l, err
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

func (d *disk) file(f vfs.File) vfs.File {
	if f == nil {
		return nil
	}
	return &diskFile{f, d}
}

// diskFile waits for space in the middle of a write too.
type diskFile struct {
	vfs.File
	disk *disk
}

func (f *diskFile) Write(b []byte) (written int, err error) {
	err = f.disk.try(func() error {
		n, err := f.File.Write(b[written:])
		written += n
		return err
	})
	return written, err
}

func (f *diskFile) WriteAt(b []byte, at int64) (written int, err error) {
	err = f.disk.try(func() error {
		n, err := f.File.WriteAt(b[written:], at+int64(written))
		written += n
		return err
	})
	return written, err
}

// Preallocate is only a wish: the write that follows waits.
func (f *diskFile) Preallocate(offset, length int64) error {
	err := f.File.Preallocate(offset, length)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota) {
		return nil
	}
	return err
}

// unwritable reports whether err says that a directory can only be read.
func unwritable(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}
