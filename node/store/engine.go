package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	memTable     = 4 << 20 // bytes of new rows in memory; as much again while they are written out
	openFiles    = 500     // as many as a default ulimit leaves beside the sockets
	bitsPerKey   = 10      // of the filters that answer "not here" for 99 of 100 unknown ids without reading
	engineFormat = pebble.FormatWALSyncChunks
)

// openEngine opens the database in dir and takes its lock. A directory that cannot be written to is opened for reading.
func openEngine(cfg Config, files vfs.FS) (*pebble.DB, *disk, error) {
	dir, err := cfg.Dir, error(nil)
	if cfg.InMemory {
		err = files.MkdirAll(dir, 0o700)
	} else {
		dir, err = makeDir(dir)
	}
	if err != nil {
		return nil, nil, err
	}
	d := newDisk(files, dir)
	lock, err := pebble.LockDirectory(dir, d)
	if unwritable(err) {
		d.readOnly = true
		lock, err = pebble.LockDirectory(dir, d)
	}
	if err != nil {
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, nil, err // the file could not even be made
		}
		return nil, nil, fmt.Errorf("%w (%v)", ErrLocked, err)
	}
	// The engine holds the lock by a reference of its own until it is closed.
	defer lock.Close()
	if !cfg.InMemory {
		if err := checkWhole(dir); err != nil {
			return nil, nil, err
		}
	}
	opts := engineOptions(cfg, d, lock)
	opts.ReadOnly = d.readOnly
	db, err := pebble.Open(dir, opts)
	if errors.Is(err, fs.ErrNotExist) { // a file that the manifest names
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, nil, wrap(err)
	}
	if err := checkFormat(db, d.readOnly); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, d, nil
}

// makeDir makes the directory and returns its one true name, because the engine's lock does not see that two names
// within one process are the same directory.
func makeDir(dir string) (string, error) {
	_, err := os.Stat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	for parent := dir; made && parent != filepath.Dir(parent); {
		parent = filepath.Dir(parent)
		syncDir(parent)
	}
	return dir, nil
}

// syncDir makes the names in dir survive a power cut. Where a directory cannot be opened or synced (Windows, somebody
// else's), the system is left to do it.
func syncDir(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	_ = d.Sync()
}

// checkFormat writes the format version into a new database and refuses one that this program does not know.
func checkFormat(db *pebble.DB, readOnly bool) error {
	version, err := lookup(db, metaKey(metaFormat))
	if err != nil {
		return err
	}
	if readOnly && (len(version) != 1 || version[0] != formatVersion) {
		return fmt.Errorf("%w, and what is in it is not of this version", ErrReadOnly)
	}
	if version == nil {
		b := db.NewBatch()
		defer b.Close()
		_ = b.Set(metaKey(metaFormat), []byte{formatVersion}, nil) // a batch in memory cannot fail
		_ = b.Set(metaKey(metaCounters), counters{}.encode(), nil)
		if err := b.Commit(pebble.Sync); err != nil {
			return wrap(err)
		}
		// The first log of a new database has an old form, in which rot looks like the end. This begins the second.
		return wrap(db.Flush())
	}
	if len(version) == 1 && version[0] == 1 {
		return upgrade(db)
	}
	if len(version) != 1 || version[0] != formatVersion {
		return fmt.Errorf("the events are in format %x and this program knows format %d: it is older than the data", version, formatVersion)
	}
	return nil
}

func engineOptions(cfg Config, files vfs.FS, lock *pebble.Lock) *pebble.Options {
	log := &engineLog{log: cfg.Log}
	opts := &pebble.Options{
		FS: files, Lock: lock,
		CacheSize:          cfg.CacheBytes + 2*memTable, // the engine takes the memory of its tables out of the cache
		MemTableSize:       memTable,
		MaxOpenFiles:       openFiles,
		FormatMajorVersion: engineFormat,
		Logger:             log,
		EventListener: &pebble.EventListener{
			BackgroundError: log.trouble,
			// The default ends the program. Whoever reads the damaged rows gets ErrDamaged; the others stay readable.
			DataCorruption: func(info pebble.DataCorruptionInfo) { log.trouble(fmt.Errorf("%w: %s", ErrDamaged, info.Path)) },
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(bitsPerKey)
	}
	return opts
}

// engineLog takes what the engine says. Its messages may hold keys, and with them authors: nothing of them is shown
// above debug level.
type engineLog struct {
	log    *slog.Logger
	warned atomic.Bool
}

func (l *engineLog) Infof(format string, args ...any) {
	l.log.Debug("engine: " + fmt.Sprintf(format, args...))
}

func (l *engineLog) Errorf(format string, args ...any) { l.Infof(format, args...) }

// engineFailure is what Fatalf panics with.
type engineFailure string

func (f engineFailure) Error() string { return string(f) }

// Fatalf must not return: the engine would go on with files that it no longer knows. It does not exit either: the writer
// recovers where it was its own write that failed (see apply), and a crash elsewhere says where it was. Nothing durable
// is lost: the log of the engine is replayed at the next start.
func (l *engineLog) Fatalf(format string, args ...any) {
	panic(engineFailure("the storage engine cannot go on: " + fmt.Sprintf(format, args...)))
}

// trouble warns once: the engine tries again many times a second, while a disk is full for instance.
func (l *engineLog) trouble(err error) {
	if !l.warned.Swap(true) {
		l.log.Warn("the storage engine is in trouble", "error", err)
	}
}

// lookup returns a copy of the value of a row, nil when there is no such row.
func lookup(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err)
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

// load returns the event at p; ok is false when there is none.
func load(r pebble.Reader, p position) (rec record, ok bool, err error) {
	v, err := lookup(r, eventKey(p))
	if v == nil || err != nil {
		return record{}, false, err
	}
	rec, err = decodeRecord(p, v)
	return rec, err == nil, err
}

// wrap marks what the engine found to be corrupt as ErrDamaged.
func wrap(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		text, _, _ := strings.Cut(err.Error(), "\n") // what follows is for the engine's authors
		return damaged("%s", text)
	}
	return err
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}
