package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"openline/protocol/reconcile"
)

const (
	maxNegentropy  = 8      // reconciliations of one connection at a time
	negentropySize = 50_000 // bytes of an answer, twice that in hex
)

// negentropy serves NIP-77: the client says what it has of what matches a filter and learns the difference. The set is that
// of NEG-OPEN; what comes later is for the next one.
func (c *conn) negentropy(ctx context.Context, m message) {
	if m.verb == "NEG-CLOSE" {
		delete(c.sets, m.sub)
		return
	}
	answer, err := c.reconcile(ctx, m)
	if err != nil {
		delete(c.sets, m.sub)
		c.send(ctx, frame("NEG-ERR", m.sub, err.Error()))
		return
	}
	c.send(ctx, frame("NEG-MSG", m.sub, hex.EncodeToString(answer)))
}

// reconcile returns the answer to a message. The error begins with one of the words of NIP-01.
func (c *conn) reconcile(ctx context.Context, m message) ([]byte, error) {
	if err := c.allow(); err != nil {
		return nil, err
	}
	msg, err := hex.DecodeString(m.payload)
	if err != nil {
		return nil, errors.New("invalid: the message is not hex")
	}
	if m.verb == "NEG-OPEN" {
		if err := c.openSet(ctx, m); err != nil {
			return nil, err
		}
	}
	set := c.sets[m.sub]
	if set == nil {
		return nil, errors.New("closed: no such reconciliation is open")
	}
	answer, err := reconcile.Answer(set, msg, reconcile.Limits{Bytes: negentropySize})
	if err != nil {
		return nil, fmt.Errorf("invalid: %w", err)
	}
	return answer, nil
}

// openSet looks up what matches the filter of NEG-OPEN.
func (c *conn) openSet(ctx context.Context, m message) error {
	delete(c.sets, m.sub)
	if len(c.sets) >= maxNegentropy {
		return errors.New("blocked: too many reconciliations; close one first")
	}
	filters, err := parseFilters(m.filters, 1)
	if err != nil {
		return err
	}
	set, err := c.cfg.Archive.Items(ctx, filters[0], c.cfg.Limits.Reconciled)
	switch {
	case errors.Is(err, ErrTooMany):
		return fmt.Errorf("blocked: this query is too big: more than %d events match", c.cfg.Limits.Reconciled)
	case err != nil:
		return errors.New("error: the events cannot be read; try again")
	}
	c.sets[m.sub] = set
	return nil
}

// parseNegentropy reads the parts of a NIP-77 message behind its verb.
func parseNegentropy(m message, parts []json.RawMessage) (message, error) {
	want := map[string]int{"NEG-OPEN": 4, "NEG-MSG": 3, "NEG-CLOSE": 2}[m.verb]
	usage := errors.New(`usage: ["NEG-OPEN", id, filter, hex], ["NEG-MSG", id, hex] or ["NEG-CLOSE", id]`)
	if len(parts) != want || json.Unmarshal(parts[1], &m.sub) != nil {
		return message{}, usage
	}
	if m.verb == "NEG-OPEN" {
		m.filters = parts[2:3]
	}
	if m.verb != "NEG-CLOSE" && json.Unmarshal(parts[len(parts)-1], &m.payload) != nil {
		return message{}, usage
	}
	return m, checkSubscription(m.sub)
}
