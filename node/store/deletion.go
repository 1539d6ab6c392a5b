package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"openline/protocol"
)

// withdraw carries out a deletion (NIP-09): its author's events go, and a tombstone keeps them away, also those that
// the deletion has overtaken. Somebody else's events and deletions stay.
func (g *group) withdraw(deletion protocol.Event) error {
	for _, t := range deletion.Tags() {
		if len(t) < 2 {
			continue
		}
		var err error
		switch t[0] {
		case "e":
			if id, bad := protocol.ParseID(t[1]); bad == nil {
				err = g.withdrawID(deletion, id)
			}
		case "a":
			if address, ok := ownAddress(t[1], deletion.PubKey()); ok {
				err = g.withdrawAddress(deletion, address)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *group) withdrawID(deletion protocol.Event, id protocol.ID) error {
	p, _, here, err := find(g.batch, id)
	if err != nil {
		return err
	}
	if here {
		target, err := g.mustLoad(p)
		if err != nil {
			return err
		}
		if target.event.PubKey() != deletion.PubKey() || target.event.Kind() == protocol.KindDeletion {
			return nil
		}
		if err := g.remove(*target); err != nil {
			return err
		}
	}
	// Under the author's name: of somebody else's event this tombstone says nothing.
	g.set(deletedKey(id, deletion.PubKey()), uint64Bytes(uint64(deletion.CreatedAt())))
	return nil
}

// withdrawAddress removes the versions up to the deletion's own time.
func (g *group) withdrawAddress(deletion protocol.Event, address string) error {
	until, ok, err := g.slotDeleted(address)
	if err != nil || ok && until >= deletion.CreatedAt() {
		return err
	}
	g.set(slotDeletedKey(address), uint64Bytes(uint64(deletion.CreatedAt())))
	target, err := g.slot(address)
	if err != nil || target == nil || target.event.CreatedAt() > deletion.CreatedAt() {
		return err
	}
	return g.remove(*target)
}

// slotDeleted returns the time up to which the versions of address are withdrawn.
func (g *group) slotDeleted(address string) (until int64, ok bool, err error) {
	v, err := lookup(g.batch, slotDeletedKey(address))
	if v == nil || err != nil {
		return 0, false, err
	}
	if len(v) != 8 {
		return 0, false, damaged("a tombstone has %d bytes, not 8", len(v))
	}
	return int64(binary.BigEndian.Uint64(v)), true, nil
}

// ownAddress reads the value of an a tag and returns the address as Event.Address writes it; false when it is not one
// of author's.
func ownAddress(s string, author protocol.PubKey) (address string, ok bool) {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 || parts[1] != author.String() {
		return "", false
	}
	n, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil {
		return "", false
	}
	kind, d := uint16(n), parts[2]
	if !protocol.Addressable(kind) && (!protocol.Replaceable(kind) || d != "") {
		return "", false
	}
	return fmt.Sprintf("%d:%s:%s", kind, author, d), true
}

// undo takes back what a deletion did that is itself gone, unless another one of the same author says the same.
func (g *group) undo(deletion protocol.Event) error {
	author := deletion.PubKey()
	for _, t := range deletion.Tags() {
		if len(t) < 2 || t[0] != "e" && t[0] != "a" {
			continue
		}
		last, ok, err := g.deletionOf(t[0][0], t[1], author)
		if err != nil {
			return err
		}
		id, badID := protocol.ParseID(t[1])
		address, isAddress := ownAddress(t[1], author)
		switch {
		case t[0] == "e" && badID == nil && !ok:
			g.delete(deletedKey(id, author))
		case t[0] == "a" && isAddress && ok:
			g.set(slotDeletedKey(address), uint64Bytes(uint64(last)))
		case t[0] == "a" && isAddress:
			g.delete(slotDeletedKey(address))
		}
	}
	return nil
}

// deletionOf returns the time of the author's last deletion with this tag.
func (g *group) deletionOf(letter byte, value string, author protocol.PubKey) (last int64, ok bool, err error) {
	prefix := tagKey(letter, value)
	low, high := newest(math.MaxInt64), oldest(0)
	from, to := append(bytes.Clone(prefix), low[:]...), append(bytes.Clone(prefix), high[:]...)
	err = eachRow(context.Background(), g.batch, from, append(to, 0), func(k, _ []byte) (bool, error) {
		p, err := suffix(prefix, k)
		if err != nil {
			return false, err
		}
		r, err := g.mustLoad(p)
		if err != nil {
			return false, err
		}
		named := slices.ContainsFunc(r.event.Tags(), func(t protocol.Tag) bool {
			return len(t) > 1 && t[0] == string(letter) && t[1] == value
		})
		if named && r.event.Kind() == protocol.KindDeletion && r.event.PubKey() == author {
			last, ok = r.event.CreatedAt(), true // the newest come first
			return false, nil
		}
		return true, nil
	})
	return last, ok, err
}
