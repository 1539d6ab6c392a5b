package bootstrap

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"openline/protocol"
)

// ListKey is the Ed25519 key of an operator who publishes lists.
type ListKey = [32]byte

// ErrNotSaved is Take's when a list was taken, but could not be written down.
var ErrNotSaved = errors.New("the list could not be written down")

// Lists remembers the newest list of every operator, in a file, so that a mirror cannot bring back an old one and a node
// that reaches no mirror still has the last. It is safe for concurrent use.
type Lists struct {
	file    string
	now     func() time.Time
	network string

	mu   sync.Mutex // guards the fields below
	kept []keptList // one for each operator and network: the expired ones too, for their versions
}

// keptList is a list and the text that proves it, which alone is in the file.
type keptList struct {
	list protocol.List
	text string
}

// OpenLists reads the file, which may be missing; with "" for its name nothing is written. A damaged one is put aside:
// the mirrors have the lists still.
func OpenLists(file string, now func() time.Time, network string) (*Lists, error) {
	l := &Lists{file: file, now: now, network: network}
	raw, err := os.ReadFile(file)
	if file == "" || errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lists of relays: %w", err)
	}
	if l.kept, err = readKept(raw); err != nil {
		return l, os.Rename(file, file+".damaged")
	}
	return l, nil
}

// readKept trusts the file no more than a mirror: every list in it has to be signed.
func readKept(raw []byte) ([]keptList, error) {
	var texts []string
	if err := json.Unmarshal(raw, &texts); err != nil {
		return nil, err
	}
	var kept []keptList
	for _, text := range texts {
		list, err := protocol.ParseList(text)
		if err != nil {
			return nil, err
		}
		kept = append(kept, keptList{list, text})
	}
	return kept, nil
}

// Take takes a list that a mirror served, if the operator with this key signed it for this network, it has not expired,
// and it is not older than the one that is kept. With ErrNotSaved the list is good for as long as this process lives.
func (l *Lists) Take(key ListKey, text string) (protocol.List, error) {
	list, err := protocol.ParseList(text)
	switch {
	case err != nil:
		return protocol.List{}, err
	case list.From != key:
		return protocol.List{}, fmt.Errorf("the list is signed by %s, not by %s", ListKeyText(list.From), ListKeyText(key))
	case list.Network != l.network:
		return protocol.List{}, fmt.Errorf("the list is for the network %q, and this node is in %q", list.Network, l.network)
	case list.Expired(l.now()):
		return protocol.List{}, fmt.Errorf("the list expired at %s", time.Unix(list.Expires, 0).UTC().Format(time.RFC3339))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.find(key)
	if i < 0 {
		l.kept = append(l.kept, keptList{list, text})
		return list, l.save()
	}
	switch old := l.kept[i].list; {
	case list.Version < old.Version:
		return protocol.List{}, fmt.Errorf("the list has version %d, and %d is known already", list.Version, old.Version)
	case list.Version > old.Version:
		l.kept[i] = keptList{list, text}
		return list, l.save()
	case !reflect.DeepEqual(list, old):
		return protocol.List{}, fmt.Errorf("there are two lists with version %d", list.Version)
	}
	return list, nil
}

// Kept returns the list of an operator that is remembered, ok = false when there is none or it has expired.
func (l *Lists) Kept(key ListKey) (list protocol.List, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.find(key)
	if i < 0 || l.kept[i].list.Expired(l.now()) {
		return protocol.List{}, false
	}
	return l.kept[i].list, true
}

// find returns where the list of an operator for this network is, -1 for nowhere; l.mu is held.
func (l *Lists) find(key ListKey) int {
	return slices.IndexFunc(l.kept, func(k keptList) bool { return k.list.From == key && k.list.Network == l.network })
}

// save writes the file; l.mu is held.
func (l *Lists) save() error {
	if l.file == "" {
		return nil
	}
	texts := []string{}
	for _, k := range l.kept {
		texts = append(texts, k.text)
	}
	raw, err := json.MarshalIndent(texts, "", " ")
	if err == nil {
		err = WriteFile(l.file, raw)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSaved, err)
	}
	return nil
}

// ParseListURL reads where a list is and who has to have signed it, as users name it: https://HOST/PATH#KEY.
func ParseListURL(s string) (mirror string, key ListKey, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", key, fmt.Errorf("list %q is no URL: %w", s, err)
	}
	switch {
	case u.Scheme != "https":
		return "", key, fmt.Errorf("list %q does not begin with https://", s)
	case u.Hostname() == "":
		return "", key, fmt.Errorf("list %q names no host", s)
	case u.Fragment == "":
		return "", key, fmt.Errorf("list %q does not end in # and the key of its operator", s)
	}
	if key, err = ParseListKey(u.Fragment); err != nil {
		return "", key, fmt.Errorf("list %q: %w", s, err)
	}
	mirror, _, _ = strings.Cut(s, "#")
	return mirror, key, nil
}

// ParseListKey reads a key as ListKeyText writes it.
func ParseListKey(s string) (key ListKey, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(key) {
		return key, fmt.Errorf("%q is no operator's key: it has 43 letters, digits, - and _", s)
	}
	return ListKey(raw), nil
}

// ListKeyText is a key in base64url without padding, 43 characters.
func ListKeyText(key ListKey) string { return base64.RawURLEncoding.EncodeToString(key[:]) }
