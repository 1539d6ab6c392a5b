package store

import (
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// upgrade makes format 2 out of format 1, which lacked the s and h rows and had three counters. It commits once, so that
// a crash leaves the old format: a million events take a batch of 100 MB.
func upgrade(db *pebble.DB) error {
	old, err := lookup(db, metaKey(metaCounters))
	if err != nil {
		return err
	}
	if len(old) != 24 {
		return damaged("the row of counters has %d bytes, not 24", len(old))
	}
	g := &group{batch: db.NewIndexedBatch(), hours: map[hourKey]*hourSum{}}
	defer g.batch.Close()
	g.count = counters{seq: binary.BigEndian.Uint64(old), events: binary.BigEndian.Uint64(old[8:]), outbox: binary.BigEndian.Uint64(old[16:])}
	err = eachRow(context.Background(), db, key(rowEvent), key(rowEvent+1), func(k, v []byte) (bool, error) {
		if len(k) != 1+len(position{}) {
			return false, damaged("a row of an event has a key of %d bytes", len(k))
		}
		r, err := decodeRecord(position(k[1:]), v)
		if err != nil {
			return false, err
		}
		count := func(key, value []byte) {
			g.count.bytes += uint64(len(key) + len(value))
			if key[0] == rowShard {
				g.set(key, value)
			}
		}
		count(k, v)
		count(idKey(r.event.ID()), make([]byte, 16))
		indexRows(r.event, count)
		return true, g.tally(r.event, true)
	})
	if err != nil {
		return err
	}
	g.setHours()
	g.set(metaKey(metaCounters), g.count.encode())
	g.set(metaKey(metaFormat), []byte{formatVersion})
	return wrap(g.batch.Commit(pebble.Sync))
}
