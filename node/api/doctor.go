package api

import (
	"context"
	"net/http"
	"time"
)

// Doctor finds out what works on this network and what is blocked.
type Doctor interface {
	// Diagnose tries every source of peers and every carrier to every known peer that the mode allows. It takes up to
	// a minute, through Tor three.
	Diagnose(ctx context.Context) (Diagnosis, error)
}

// Diagnosis is what works, what does not and why, without any address.
type Diagnosis struct {
	Mode      string          `json:"mode"`
	Known     int             `json:"known"`   // nodes that are known
	Reached   int             `json:"reached"` // of them, now
	Causes    []Cause         `json:"causes"`  // what is in the way, the widest first; empty: nothing
	Next      []string        `json:"next"`    // what to do
	Carriers  []CarrierCheck  `json:"carriers"`
	Sources   []SourceCheck   `json:"sources"`
	Resolvers []ResolverCheck `json:"resolvers"`
	Names     []NameCheck     `json:"names"`
}

// Cause is one thing that is in the way.
type Cause struct {
	Code string `json:"code"` // stable
	Text string `json:"text"`
}

// CarrierCheck says how a carrier did with all peers that have an address for it.
type CarrierCheck struct {
	Carrier string `json:"carrier"`
	Allowed bool   `json:"allowed"` // by the mode and --carriers; else nothing was tried
	Tried   int    `json:"tried"`   // addresses
	Worked  int    `json:"worked"`
	Cause   string `json:"cause"` // the code of what kept the others from working, "" when nothing did
	Text    string `json:"text"`
	Millis  int64  `json:"millis"` // until the fastest connection stood
	Rate    int64  `json:"rate"`   // bytes a second that came over the best one
}

// SourceCheck says what a source of peers found.
type SourceCheck struct {
	Source string `json:"source"`
	Found  int    `json:"found"` // peers
	Error  string `json:"error,omitempty"`
}

// ResolverCheck says whether a resolver over HTTPS answers.
type ResolverCheck struct {
	Resolver string `json:"resolver"`
	Works    bool   `json:"works"`
}

// What a look-up in clear is like beside one over HTTPS.
const (
	NameTrue     = "true"     // the same
	NameFalse    = "false"    // something else: somebody answers in the resolver's stead
	NameSilent   = "silent"   // nothing
	NameUnasked  = "unasked"  // in clear, for the mode forbids it
	NameUnproven = "unproven" // one of the two cannot answer, so there is nothing to compare
)

// NameCheck says how the look-up of a name that this node uses is answered in clear.
type NameCheck struct {
	Name  string `json:"name"`
	Clear string `json:"clear"` // one of the constants
}

func (s *Server) diagnose(w http.ResponseWriter, r *http.Request) error {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not offered by every ResponseWriter; it takes a while
	d, err := s.cfg.Doctor.Diagnose(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, d)
	return nil
}

// Diagnose has the node find out what works on its network.
func (c *Client) Diagnose(ctx context.Context) (Diagnosis, error) {
	return call[Diagnosis](ctx, c, "POST", "/doctor", nil, nil)
}
