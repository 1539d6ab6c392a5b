package protocol

import "fmt"

// Code says why an event was refused. Its text stands in testdata/vectors and in metrics.
type Code string

// Refusals that every honest node utters whatever its clock and state: Static is true for them.
const (
	Malformed    Code = "malformed"     // the bytes are not an event, or not its one encoding
	TooLarge     Code = "too-large"     // canonical JSON over MaxEventSize
	BadKind      Code = "kind"          // a kind that does not travel
	BadText      Code = "text"          // empty, over 140 characters, control characters
	BadTag       Code = "tag"           // too many tags, values or topics, or a topic out of form
	Protected    Code = "protected"     // NIP-70
	WrongShard   Code = "wrong-shard"   // came under the topic of another shard
	BadID        Code = "id"            // the id is not the hash of the event
	BadSignature Code = "bad-signature" // BIP-340 says no
)

// Refusals that depend on the clock or on what the node holds.
const (
	Stale     Code = "stale"      // older than the live window, on the mesh
	Ahead     Code = "ahead"      // further ahead of the clock than LiveAhead
	Expired   Code = "expired"    // NIP-40
	Duplicate Code = "duplicate"  // known, or an older version of a replaceable event
	Deleted   Code = "deleted"    // its author withdrew it (NIP-09)
	OverQuota Code = "over-quota" // not among the 30 smallest ids of its author and hour
	Busy      Code = "busy"       // the node's or the link's budget is used up
)

// Static reports whether every honest node refuses such an event whatever its clock and state,
// so that whoever sends one may be held to account for it.
func (c Code) Static() bool {
	switch c {
	case Malformed, TooLarge, BadKind, BadText, BadTag, Protected, WrongShard, BadID, BadSignature:
		return true
	}
	return false
}

// Rejection is the error of every refused event. Reason is for people and never holds content or keys.
type Rejection struct {
	Code   Code
	Reason string
}

func (r *Rejection) Error() string { return r.Reason }

// Reject returns a Rejection with a formatted reason.
func Reject(c Code, format string, args ...any) *Rejection {
	return &Rejection{Code: c, Reason: fmt.Sprintf(format, args...)}
}
