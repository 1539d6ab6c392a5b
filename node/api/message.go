package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"openline/protocol"
)

// message is what a Nostr client sends (NIP-01).
type message struct {
	verb    string          // "EVENT", "REQ" or "CLOSE"
	event   json.RawMessage // of EVENT; not looked at yet
	sub     string          // of REQ and CLOSE
	filters []json.RawMessage
	payload string // of NIP-77: hex
}

// maxSubscriptionID is NIP-01's bound in characters.
const maxSubscriptionID = 64

// parseMessage reads one frame. The error is for a NOTICE and quotes nothing but a verb.
func parseMessage(raw []byte) (message, error) {
	if event, ok := bytes.CutPrefix(raw, []byte(`["EVENT",`)); ok && bytes.HasSuffix(event, []byte("]")) {
		return message{verb: "EVENT", event: event[:len(event)-1]}, nil // nearly all: protocol.ParseJSON reads it strictly
	}
	var parts []json.RawMessage
	var m message
	if err := json.Unmarshal(raw, &parts); err != nil || len(parts) == 0 || json.Unmarshal(parts[0], &m.verb) != nil {
		return message{}, errors.New(`a message is a JSON array that begins with "EVENT", "REQ" or "CLOSE"`)
	}
	switch m.verb {
	case "EVENT":
		if len(parts) != 2 {
			return message{}, errors.New(`usage: ["EVENT", event]`)
		}
		m.event = parts[1]
		return m, nil
	case "NEG-OPEN", "NEG-MSG", "NEG-CLOSE":
		return parseNegentropy(m, parts)
	case "REQ", "CLOSE":
		if len(parts) < 2 || json.Unmarshal(parts[1], &m.sub) != nil {
			return message{}, fmt.Errorf(`usage: ["%s", subscription id, …]`, m.verb)
		}
		m.filters = parts[2:]
		return m, checkSubscription(m.sub)
	}
	return message{}, fmt.Errorf(`%.20q is not understood here; this relay knows "EVENT", "REQ", "CLOSE" and those of NIP-77`, m.verb)
}

// checkSubscription refuses ids that cannot be repeated to the client as they came.
func checkSubscription(id string) error {
	n := utf8.RuneCountInString(id)
	if n < 1 || n > maxSubscriptionID || strings.ContainsRune(id, utf8.RuneError) { // which stands for what is no text
		return fmt.Errorf("a subscription id has 1 to %d characters", maxSubscriptionID)
	}
	return nil
}

// parseFilters reads the filters of a REQ. The error is the reason of a CLOSED.
func parseFilters(raw []json.RawMessage, most int) ([]protocol.Filter, error) {
	switch {
	case len(raw) == 0:
		return nil, errors.New(`invalid: usage: ["REQ", subscription id, filter, …]`)
	case len(raw) > most:
		return nil, fmt.Errorf("error: %d filters; %d are the most", len(raw), most)
	}
	filters := make([]protocol.Filter, len(raw))
	for i, r := range raw {
		f, err := protocol.ParseFilter(r)
		if err != nil {
			return nil, fmt.Errorf("invalid: %w", err)
		}
		if f.Search != "" {
			return nil, errors.New("unsupported: search (NIP-50) is not offered here")
		}
		filters[i] = f
	}
	return filters, nil
}

// claimedID returns the id that a refused event says it has, so that its client can tell which one was refused.
func claimedID(raw []byte) (string, bool) {
	var e struct {
		ID string `json:"id"`
	}
	return e.ID, json.Unmarshal(raw, &e) == nil && e.ID != "" && len(e.ID) <= 2*len(protocol.ID{})
}

// frame writes a message to a client. Strings are escaped as encoding/json does it, so any text may stand in them.
func frame(parts ...any) []byte {
	b, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings and booleans always have a JSON form
	}
	return b
}

// okPrefix translates why an event was refused into NIP-01's machine-readable words.
func okPrefix(c protocol.Code) string {
	switch c {
	case protocol.Duplicate:
		return "duplicate"
	case protocol.Deleted:
		return "blocked"
	case protocol.Protected:
		return "restricted"
	case protocol.OverQuota, protocol.Busy:
		return "rate-limited"
	}
	return "invalid"
}

// okReason says what an OK message says: whether the event is here, and the reason.
func okReason(r Receipt, err error) (ok bool, reason string) {
	rejection, refused := errors.AsType[*protocol.Rejection](err)
	switch {
	case err == nil && strings.HasPrefix(r.Message, "posted"):
		return true, ""
	case err == nil:
		return true, r.Message
	case !refused:
		if h, ok := errors.AsType[*Hint](err); ok {
			return false, "error: " + h.Error()
		}
		return false, "error: the event could not be kept; try again"
	}
	return rejection.Code == protocol.Duplicate, okPrefix(rejection.Code) + ": " + rejection.Reason
}

// verdict is the label of an answer in the metrics.
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	if r, ok := errors.AsType[*protocol.Rejection](err); ok {
		return string(r.Code)
	}
	return "error"
}
