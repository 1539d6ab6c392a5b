package api

import (
	"context"
	"errors"
	"time"

	"openline/protocol"
	"openline/protocol/reconcile"
)

// Backend is the node behind the door.
type Backend interface {
	// Publish takes one NIP-01 event object of a client. nil: it is durable here, or was passed on if it is ephemeral.
	// A *protocol.Rejection says why not; Code Duplicate means that it is here already.
	Publish(ctx context.Context, raw []byte) (Receipt, error)

	// Post signs a note with the node's own key and publishes it.
	Post(ctx context.Context, d Draft) (Receipt, error)

	// Follow calls emit with the stored events that match one of the filters, newest first, at most so many for each,
	// then caughtUp once, then emit with every new event, until ctx ends, a callback returns false (the error is nil
	// then) or the caller is too slow (ErrLagged).
	Follow(ctx context.Context, filters []protocol.Filter, most int, emit func(protocol.Event) bool, caughtUp func() bool) error

	Status(ctx context.Context) (Status, error)

	// Topics returns the n most active topics since then.
	Topics(ctx context.Context, since time.Time, n int) ([]Topic, error)
}

// Archive is what the node keeps, as a whole.
type Archive interface {
	// Items returns ids and times of what matches f, for reconciliation; ErrTooMany when they are more than most.
	Items(ctx context.Context, f protocol.Filter, most int) (reconcile.Set, error)

	// Import takes one envelope out of a bundle. The error is a *protocol.Rejection or the node's trouble.
	Import(ctx context.Context, envelope []byte) error

	// Export calls emit with what travels and matches one of the filters, the oldest first, until it returns false.
	Export(ctx context.Context, filters []protocol.Filter, emit func(protocol.Event) bool) error

	// Held waits until at least want other nodes are known to hold an event of this node's clients, and returns how many
	// do, also when ctx ends. ErrUnknown: it is not watched.
	Held(ctx context.Context, id protocol.ID, want int) (int, error)
}

// Owner is what belongs to the node's user. A relay has none.
type Owner interface {
	Key() (Key, error)
	SetKey(ctx context.Context, c KeyChange) (Key, error)
	ExportKey(ctx context.Context) (string, error) // nsec1… or ncryptsec1…
	Follows(ctx context.Context) ([]Follow, error) // with names of authors
	SetFollow(ctx context.Context, f Follow, on bool) (changed bool, err error)
}

var (
	// ErrLagged is Follow's error for a caller that reads too slowly.
	ErrLagged = errors.New("the follower reads too slowly")

	// ErrTooMany is Items' error.
	ErrTooMany = errors.New("too many events match")

	// ErrUnknown is Held's error.
	ErrUnknown = errors.New("that is no event which was posted here lately")

	// ErrNoDaemon is the Client's error when nothing answers at its address.
	ErrNoDaemon = errors.New("no daemon is running here")
)

// Hint is an error with what to do next. It crosses the HTTP API.
type Hint struct {
	Err  error
	Hint string
}

func (h *Hint) Error() string { return h.Err.Error() }
func (h *Hint) Unwrap() error { return h.Err }

// Receipt says what became of an event.
type Receipt struct {
	ID      string `json:"id"`
	Peers   int    `json:"peers"`   // to which it goes at once
	Message string `json:"message"` // the same and more, for people
}

// Draft is a note to be signed.
type Draft struct {
	Text   string   `json:"text"`
	Topics []string `json:"topics,omitempty"` // besides the #words of the text
	Reply  string   `json:"reply,omitempty"`  // id of the note that this one answers
}

// Status says how a node is.
type Status struct {
	Version   string    `json:"version"`
	Network   string    `json:"network"`
	Role      string    `json:"role"` // "daemon" or "relay"
	PeerID    string    `json:"peer_id"`
	Addresses []string  `json:"addresses"` // for another node's --peer
	Peers     int       `json:"peers"`
	PeerList  []Peer    `json:"peer_list"`
	Events    uint64    `json:"events"`
	Bytes     int64     `json:"bytes"`   // on disk
	Waiting   int       `json:"waiting"` // own events that went to no peer yet
	API       string    `json:"api"`     // host:port of the local door
	Websocket string    `json:"websocket"`
	Started   time.Time `json:"started"`

	Reach Reach       `json:"reach"`
	Kept  Kept        `json:"kept"`
	Posts []Post      `json:"posts"` // the user's last, the newest first
	Feeds []FeedState `json:"feeds"` // what the user follows
}

// Reach says how far this node's line reaches, as far as it can know.
type Reach struct {
	Local     int            `json:"local"`     // peers on this machine or local networks
	Elsewhere int            `json:"elsewhere"` // the others
	Carriers  map[string]int `json:"carriers"`  // peers by what carries the connection: "quic", "tcp"
	Links     int            `json:"links"`     // peers with whom history is exchanged
	Island    int            `json:"island"`    // nodes that reach each other, this one included: an estimate, and others can lie
	Outside   time.Time      `json:"outside"`   // when anything from outside the local networks was last heard, here or by a neighbour; zero: never
	Compared  time.Time      `json:"compared"`  // when all that is here was last compared with a peer; zero: not since the start
	Gaps      []Gap          `json:"gaps"`      // times of which something may be missing

	ClockOffset int64 `json:"clock_offset"` // seconds by which the peers' clocks are ahead of this one's, in the middle
	ClockPeers  int   `json:"clock_peers"`  // how many peers that is from
}

// Kinds of gaps.
const (
	GapAlone  = "alone"  // without any peer
	GapIsland = "island" // with peers, but without word from outside
)

// Gap is a time in which this node was cut off. It ends when a peer who may know more has been compared with.
type Gap struct {
	Kind string    `json:"kind"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Kept says what is kept and what went.
type Kept struct {
	Logical      uint64    `json:"logical"`        // bytes before compression, which the cap bounds
	Cap          uint64    `json:"cap"`            // 0: none
	KeepForHours int64     `json:"keep_for_hours"` // strangers' events; 0: for ever
	Horizon      time.Time `json:"horizon"`        // strangers' events before it are gone; zero: none ever went
	Evicted      uint64    `json:"evicted"`        // events, ever
	Full         bool      `json:"full"`           // the disk is: nothing new is taken until there is space
	ReadOnly     bool      `json:"read_only"`      // the directory cannot be written to: nothing new is taken
}

// Post is one of the user's own events.
type Post struct {
	ID        string `json:"id"`
	CreatedAt int64  `json:"created_at"`
	HeldBy    int    `json:"held_by"` // distinct other nodes known to hold it, since this start: at least so many do
}

// FeedState says how new what is here of a followed feed is.
type FeedState struct {
	Follow
	Newest   time.Time `json:"newest"`   // the newest note; zero: none
	Compared time.Time `json:"compared"` // when it was last compared with a peer; zero: not since the start
}

// Peer is a connected node.
type Peer struct {
	ID        string    `json:"id"`
	Address   string    `json:"address"`
	Direction string    `json:"direction"` // "in" or "out"
	Source    string    `json:"source"`    // what found it, "" when it came by itself
	Since     time.Time `json:"since"`
	Mesh      bool      `json:"mesh"`    // it has a link in the mesh
	Local     bool      `json:"local"`   // on this machine or a local network
	Carrier   string    `json:"carrier"` // "quic" or "tcp"
}

// Topic is how active a topic was.
type Topic struct {
	Topic   string    `json:"topic"`
	Events  int       `json:"events"`
	Authors int       `json:"authors"`
	Newest  time.Time `json:"newest"`
}

// Key describes the key that signs, and never holds it.
type Key struct {
	Exists    bool   `json:"exists"`
	Npub      string `json:"npub"`
	Hex       string `json:"hex"`
	Protected bool   `json:"protected"` // by a passphrase
	Locked    bool   `json:"locked"`    // until the passphrase is given
}

// KeyChange is something to do with the key.
type KeyChange struct {
	Action     string `json:"action"` // "new", "import", "protect", "unlock" or "unprotect"
	Secret     string `json:"secret,omitempty"`
	Passphrase string `json:"passphrase,omitempty"`
	Replace    bool   `json:"replace,omitempty"` // for "new" and "import": even if there is a key
}

// Follow is a topic or an author that the user follows.
type Follow struct {
	Topic  string `json:"topic,omitempty"`
	Author string `json:"author,omitempty"` // hex
	Npub   string `json:"npub,omitempty"`
	Name   string `json:"name,omitempty"` // from the author's profile: a claim
}
