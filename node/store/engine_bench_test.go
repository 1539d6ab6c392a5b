package store

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite"

	"openline/protocol"
)

// engine is what the comparison asks of an engine: sorted rows, a synced batch, a scan with a read for each row.
type engine interface {
	write(rows [][2][]byte) error                                   // durable when it returns
	newest(prefix []byte, n int, visit func(envelope []byte)) error // through the index at prefix
	close() error
}

// BenchmarkEngine decided for Pebble; the figures stand in the package comment. Every engine gets the same work:
// events from JSON with their signature checked, seven keys each, in synced groups; then the newest 100 of a topic.
func BenchmarkEngine(b *testing.B) {
	posts := signed(b, 2048)
	for _, c := range []struct {
		name string
		open func(dir string) (engine, error)
	}{{"pebble", openPebble}, {"bbolt", openBolt}, {"sqlite", openSQLite}} {
		for _, group := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("%s/put/group=%d", c.name, group), func(b *testing.B) { benchWrite(b, c.open, posts, group) })
		}
		b.Run(c.name+"/topic100", func(b *testing.B) { benchTopic(b, c.open) })
	}
}

func benchWrite(b *testing.B, open func(string) (engine, error), posts [][]byte, group int) {
	e, err := open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer e.close()
	var rows [][2][]byte
	n := 0
	for b.Loop() {
		event, err := protocol.ParseJSON(posts[n%len(posts)], protocol.Check{Scope: protocol.Late, Now: start})
		if err != nil {
			b.Fatal(err)
		}
		rows = append(rows, sevenRows(event, n)...)
		if n++; n%group == 0 {
			if err := e.write(rows); err != nil {
				b.Fatal(err)
			}
			rows = rows[:0]
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func benchTopic(b *testing.B, open func(string) (engine, error)) {
	const events, topics = 50_000, 100
	e, err := open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer e.close()
	var rows [][2][]byte
	for i := range int64(events) {
		rows = append(rows, sevenRows(note(i%500, start.Unix()-i, "a note of usual length", protocol.Tag{"t", fmt.Sprint(i % topics)}), int(i))...)
		if i%1000 == 999 {
			if err := e.write(rows); err != nil {
				b.Fatal(err)
			}
			rows = rows[:0]
		}
	}
	n := 0
	for b.Loop() {
		got := 0
		err := e.newest(tagKey('t', fmt.Sprint(n%topics)), 100, func(envelope []byte) {
			if _, err := protocol.Load(envelope[16:]); err != nil {
				b.Error(err)
			}
			got++
		})
		if err != nil || got != 100 {
			b.Fatalf("%d events, %v", got, err)
		}
		n++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}

// sevenRows are the rows of a note with one topic and one reference. The n-th time an event counts as another one.
func sevenRows(e protocol.Event, n int) [][2][]byte {
	id := e.ID()
	binary.BigEndian.PutUint32(id[:], uint32(n)*2654435761) // spread, as ids are
	p := positionOf(e.CreatedAt(), id)
	r := record{seq: uint64(n), received: start, event: e}
	rows := [][2][]byte{{eventKey(p), r.encode()}, {idKey(id), make([]byte, 16)}, {key(rowTag, []byte{'e'}, id[:16], p[:]), nil}}
	indexRows(e, func(k, v []byte) {
		if len(rows) < 7 {
			rows = append(rows, [2][]byte{append(k[:len(k)-len(p):len(k)-len(p)], p[:]...), v})
		}
	})
	return rows
}

// signed returns n notes as JSON.
func signed(b *testing.B, n int) [][]byte {
	key, err := protocol.NewSecretKey(bytes.NewReader(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		b.Fatal(err)
	}
	posts := make([][]byte, n)
	for i := range posts {
		e, err := key.Sign(protocol.Draft{CreatedAt: start.Unix() - int64(i), Kind: protocol.KindNote,
			Content: fmt.Sprint("a note of about the length that notes have when people are in a hurry ", i), Tags: []protocol.Tag{{"t", fmt.Sprint(i % 100)}}})
		if err != nil {
			b.Fatal(err)
		}
		posts[i] = e.AppendJSON(nil)
	}
	return posts
}

type pebbleEngine struct{ db *pebble.DB }

func openPebble(dir string) (engine, error) {
	cfg := config(dir)
	db, _, err := openEngine(cfg, vfs.Default)
	return pebbleEngine{db}, err
}

func (e pebbleEngine) write(rows [][2][]byte) error {
	b := e.db.NewBatch()
	for _, r := range rows {
		if err := b.Set(r[0], r[1], nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (e pebbleEngine) newest(prefix []byte, n int, visit func([]byte)) error {
	it, err := e.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	rows, err := e.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	for ok := it.SeekGE(prefix); ok && n > 0 && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
		if rows.SeekGE(key(rowEvent, it.Key()[len(prefix):])) {
			visit(rows.Value())
		}
		n--
	}
	return it.Error()
}

func (e pebbleEngine) close() error { return e.db.Close() }

type boltEngine struct{ db *bolt.DB }

var benchBucket = []byte("rows")

func openBolt(dir string) (engine, error) {
	db, err := bolt.Open(filepath.Join(dir, "bolt"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return boltEngine{db}, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(benchBucket)
		return err
	})
}

func (e boltEngine) write(rows [][2][]byte) error {
	return e.db.Update(func(tx *bolt.Tx) error {
		for _, r := range rows {
			if err := tx.Bucket(benchBucket).Put(r[0], r[1]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e boltEngine) newest(prefix []byte, n int, visit func([]byte)) error {
	return e.db.View(func(tx *bolt.Tx) error {
		rows := tx.Bucket(benchBucket)
		c := rows.Cursor()
		for k, _ := c.Seek(prefix); k != nil && n > 0 && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			visit(rows.Get(key(rowEvent, k[len(prefix):])))
			n--
		}
		return nil
	})
}

func (e boltEngine) close() error { return e.db.Close() }

type sqliteEngine struct {
	db             *sql.DB
	put, scan, get *sql.Stmt
}

func openSQLite(dir string) (engine, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "sqlite")+
		"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=cache_size(-16384)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("create table rows (k blob primary key, v blob) without rowid"); err != nil {
		return nil, err
	}
	put, err := db.Prepare("insert or replace into rows values (?, ?)")
	if err != nil {
		return nil, err
	}
	scan, err := db.Prepare("select k from rows where k >= ? and k < ? order by k limit ?")
	if err != nil {
		return nil, err
	}
	get, err := db.Prepare("select v from rows where k = ?")
	return sqliteEngine{db, put, scan, get}, err
}

func (e sqliteEngine) write(rows [][2][]byte) error {
	tx, err := e.db.Begin()
	if err != nil {
		return err
	}
	put := tx.Stmt(e.put)
	for _, r := range rows {
		if _, err := put.Exec(r[0], r[1]); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (e sqliteEngine) newest(prefix []byte, n int, visit func([]byte)) error {
	high := append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, len(position{})+1)...)
	rows, err := e.scan.Query(prefix, high, n)
	if err != nil {
		return err
	}
	var keys [][]byte
	for rows.Next() {
		var k []byte
		if err := rows.Scan(&k); err != nil {
			return err
		}
		keys = append(keys, key(rowEvent, k[len(prefix):]))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, k := range keys {
		var v []byte
		if err := e.get.QueryRow(k).Scan(&v); err != nil {
			return err
		}
		visit(v)
	}
	return nil
}

func (e sqliteEngine) close() error { return e.db.Close() }
