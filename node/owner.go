package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"openline/bootstrap"
	"openline/node/api"
	"openline/protocol"
)

// owner keeps what belongs to the user alone: the key that signs, and whom they follow. Both stay in files that only
// the user can read, and neither is ever published.
type owner struct {
	dir      string
	nameOf   func(context.Context, protocol.PubKey) string
	mu       sync.Mutex // guards the fields below
	code     string     // nsec1… or ncryptsec1… as in the file; "" before the first post
	key      *protocol.SecretKey
	pubkey   string // hex; kept beside an encrypted key, so that it can be told without the passphrase
	followed []api.Follow
	authors  map[protocol.PubKey]bool // those of followed; replaced whole, never changed
	topics   map[string]bool          // the same
}

var _ api.Owner = (*owner)(nil)

// ownerFile is the form of the file follows.json.
type ownerFile struct {
	Follows []api.Follow `json:"follows"`
}

func openOwner(dir string, nameOf func(context.Context, protocol.PubKey) string) (*owner, error) {
	o := &owner{dir: dir, nameOf: nameOf}
	raw, err := os.ReadFile(o.keyPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if err := o.load(string(raw)); err != nil {
		return nil, &api.Hint{Err: fmt.Errorf("%s: %w", o.keyPath(), err), Hint: "restore it from a backup, or move it aside to start with a new key"}
	}
	raw, err = os.ReadFile(o.followsPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the follows: %w", err)
	}
	if err == nil {
		var f ownerFile
		if err := json.Unmarshal(raw, &f); err != nil {
			return nil, &api.Hint{Err: fmt.Errorf("%s: %w", o.followsPath(), err), Hint: "mend the file or move it aside"}
		}
		o.followed = f.Follows
	}
	o.index()
	return o, nil
}

func (o *owner) keyPath() string     { return filepath.Join(o.dir, "key") }
func (o *owner) followsPath() string { return filepath.Join(o.dir, "follows.json") }

// load reads the key file: nsec1…, or ncryptsec1… and the public key on a second line.
func (o *owner) load(content string) error {
	lines := strings.Fields(content)
	if len(lines) == 0 {
		return nil
	}
	o.code = lines[0]
	if strings.HasPrefix(o.code, "ncryptsec1") {
		if len(lines) > 1 {
			k, err := protocol.ParsePubKey(lines[1])
			if err != nil {
				return err
			}
			o.pubkey = k.String()
		}
		return nil
	}
	key, err := protocol.ParseSecretKey(o.code)
	if err != nil {
		return err
	}
	o.key, o.pubkey = &key, key.PubKey().String()
	return nil
}

// signer returns the key, made now if the user never had one.
func (o *owner) signer() (protocol.SecretKey, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.key != nil {
		return *o.key, nil
	}
	if o.code != "" {
		return protocol.SecretKey{}, errLocked()
	}
	key, err := protocol.NewSecretKey(rand.Reader)
	if err != nil {
		return protocol.SecretKey{}, err
	}
	return key, o.keep(key, key.Nsec())
}

func errLocked() error {
	return &api.Hint{Err: errors.New("the key is protected by a passphrase"), Hint: "open it with: openline key unlock"}
}

// keep writes code as the key file and uses key from now on. mu is held.
func (o *owner) keep(key protocol.SecretKey, code string) error {
	content, pub := code+"\n", key.PubKey().String()
	if strings.HasPrefix(code, "ncryptsec1") {
		content += pub + "\n"
	}
	if err := bootstrap.WriteFile(o.keyPath(), []byte(content)); err != nil {
		return err
	}
	o.code, o.key, o.pubkey = code, &key, pub
	o.index()
	return nil
}

// Key says whether there is a key and whose it is.
func (o *owner) Key() (api.Key, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.describe()
}

func (o *owner) describe() (api.Key, error) {
	k := api.Key{Exists: o.code != "", Hex: o.pubkey, Protected: strings.HasPrefix(o.code, "ncryptsec1")}
	k.Locked = k.Exists && o.key == nil
	if o.pubkey != "" {
		pub, err := protocol.ParsePubKey(o.pubkey)
		if err != nil {
			return api.Key{}, err
		}
		k.Npub = pub.Npub()
	}
	return k, nil
}

// SetKey makes, imports, protects or opens the key.
func (o *owner) SetKey(_ context.Context, c api.KeyChange) (api.Key, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	switch c.Action {
	case "new":
		err = o.replace(c, func() (protocol.SecretKey, error) { return protocol.NewSecretKey(rand.Reader) })
	case "import":
		err = o.replace(c, func() (protocol.SecretKey, error) { return openKey(c.Secret, c.Passphrase) })
	case "protect":
		err = o.protect(c.Passphrase)
	case "unlock":
		err = o.unlock(c.Passphrase)
	case "unprotect":
		if err = o.unlock(c.Passphrase); err == nil {
			err = o.keep(*o.key, o.key.Nsec())
		}
	default:
		err = &api.Hint{Err: fmt.Errorf("%.20q is no action on a key", c.Action), Hint: "one of new, import, protect, unlock, unprotect"}
	}
	if err != nil {
		return api.Key{}, err
	}
	return o.describe()
}

func openKey(code, passphrase string) (protocol.SecretKey, error) {
	code = strings.TrimSpace(code)
	if !strings.HasPrefix(code, "ncryptsec1") {
		return protocol.ParseSecretKey(code)
	}
	if passphrase == "" {
		return protocol.SecretKey{}, &api.Hint{Err: errors.New("this key is protected by a passphrase"), Hint: "give its passphrase too"}
	}
	return protocol.DecryptSecretKey(code, passphrase)
}

// replace takes a new key into use. A key that was there is kept beside it: who loses a key loses a name.
func (o *owner) replace(c api.KeyChange, get func() (protocol.SecretKey, error)) error {
	if o.code != "" && !c.Replace {
		return &api.Hint{Err: errors.New("there is a key already"), Hint: "to use another one from now on, add --replace; the old one is kept in a file"}
	}
	key, err := get()
	if err != nil {
		return err
	}
	code := key.Nsec()
	if c.Action == "import" && strings.HasPrefix(strings.TrimSpace(c.Secret), "ncryptsec1") {
		code = strings.TrimSpace(c.Secret)
	}
	if o.code != "" {
		old := fmt.Sprintf("%s.old-%s", o.keyPath(), time.Now().UTC().Format("20060102-150405.000"))
		if err := bootstrap.WriteFile(old, []byte(o.code+"\n")); err != nil {
			return err
		}
	}
	return o.keep(key, code)
}

func (o *owner) protect(passphrase string) error {
	switch {
	case passphrase == "":
		return errors.New("an empty passphrase protects nothing")
	case o.code == "":
		return &api.Hint{Err: errors.New("there is no key yet"), Hint: "make one with: openline key new"}
	case o.key == nil:
		return errLocked()
	}
	code, err := o.key.Encrypt(passphrase, rand.Reader)
	if err != nil {
		return err
	}
	return o.keep(*o.key, code)
}

func (o *owner) unlock(passphrase string) error {
	if o.code == "" {
		return &api.Hint{Err: errors.New("there is no key yet"), Hint: "make one with: openline key new"}
	}
	if !strings.HasPrefix(o.code, "ncryptsec1") {
		return errors.New("the key has no passphrase")
	}
	key, err := protocol.DecryptSecretKey(o.code, passphrase)
	if err != nil {
		return err
	}
	o.key, o.pubkey = &key, key.PubKey().String()
	return nil
}

// ExportKey returns the key as its file has it: nsec1…, or ncryptsec1… when it is protected.
func (o *owner) ExportKey(context.Context) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.code == "" {
		return "", &api.Hint{Err: errors.New("there is no key yet"), Hint: "one is made with the first post, or with: openline key new"}
	}
	return o.code, nil
}

// Follows returns whom the user follows, oldest first, authors with the names of their profiles.
func (o *owner) Follows(ctx context.Context) ([]api.Follow, error) {
	o.mu.Lock()
	list := slices.Clone(o.followed)
	o.mu.Unlock()
	for i := range list {
		if list[i].Author == "" {
			continue
		}
		k, err := protocol.ParsePubKey(list[i].Author)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.followsPath(), err)
		}
		list[i].Npub, list[i].Name = k.Npub(), o.nameOf(ctx, k)
	}
	return list, nil
}

// SetFollow starts or ends following a topic or an author and reports whether that changed anything.
func (o *owner) SetFollow(_ context.Context, f api.Follow, on bool) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f = api.Follow{Topic: f.Topic, Author: f.Author} // names are looked up, not kept
	i := slices.Index(o.followed, f)
	if on == (i >= 0) {
		return false, nil
	}
	next := append(slices.Clone(o.followed), f)
	if !on {
		next = slices.Delete(slices.Clone(o.followed), i, i+1)
	}
	raw, err := json.MarshalIndent(ownerFile{Follows: next}, "", "  ")
	if err != nil {
		return false, err
	}
	if err := bootstrap.WriteFile(o.followsPath(), []byte(string(raw)+"\n")); err != nil {
		return false, err
	}
	o.followed = next
	o.index()
	return true, nil
}

// index makes the sets that wants looks into. mu is held, or nobody else has o yet.
func (o *owner) index() {
	o.authors, o.topics = map[protocol.PubKey]bool{}, map[string]bool{}
	if k, err := protocol.ParsePubKey(o.pubkey); err == nil {
		o.authors[k] = true // what the user wrote elsewhere
	}
	for _, f := range o.followed {
		if k, err := protocol.ParsePubKey(f.Author); err == nil {
			o.authors[k] = true
		} else if f.Topic != "" {
			o.topics[f.Topic] = true
		}
	}
}

// interests returns whom and what the user follows. The caller must not change the sets.
func (o *owner) interests() (authors map[protocol.PubKey]bool, topics map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.authors, o.topics
}

// wants reports whether e is by somebody or on something that the user follows.
func (o *owner) wants(e protocol.Event) bool {
	authors, topics := o.interests()
	return authors[e.PubKey()] || slices.ContainsFunc(e.Topics(), func(t string) bool { return topics[t] })
}
