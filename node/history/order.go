package history

import (
	"cmp"
	"crypto/sha256"
	"slices"

	"openline/protocol"
)

// describe returns what a peer on a thin line is told of an event before it asks for it.
func describe(e protocol.Event) description {
	author := e.PubKey()
	d := description{created: e.CreatedAt(), author: [4]byte(author[:4])}
	for _, t := range e.Topics() {
		d.topics = append(d.topics, TopicGroup(t))
	}
	return d
}

// AuthorGroup is the group of authors that a follow shows on a thin line: one of 256.
func AuthorGroup(author protocol.PubKey) byte { return author[0] }

// TopicGroup is the first two bytes of a topic's SHA-256. A follow shows the first alone.
func TopicGroup(topic string) [2]byte {
	h := sha256.Sum256([]byte(topic))
	return [2]byte(h[:2])
}

// Follows are groups in which there is somebody or something that the user follows. The order in which a node fetches
// shows them to its peer, and therefore they are groups: one of 256 each, not whom or what.
type Follows struct {
	Authors [256]bool
	Topics  [256]bool
}

func (f *Follows) wants(d description) bool {
	return f.Authors[d.author[0]] || slices.ContainsFunc(d.topics, func(t [2]byte) bool { return f.Topics[t[0]] })
}

// described is an id with its description.
type described struct {
	id protocol.ID
	description
}

// order sorts what is to be fetched over a thin line: what the user follows, then each author's newest, then each
// author's second newest, and so on; within these the newest first. What is not there any more is left out.
func order(list []described, f *Follows) []protocol.ID {
	slices.SortFunc(list, func(a, b described) int { return cmp.Compare(b.created, a.created) })
	nth := map[[4]byte]int{}
	type ranked struct {
		described
		class int
	}
	var all []ranked
	for _, d := range list {
		if d.created < 0 {
			continue
		}
		class := -1
		if !f.wants(d.description) {
			class = nth[d.author]
			nth[d.author]++
		}
		all = append(all, ranked{d, class})
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(a.class, b.class) })
	ids := make([]protocol.ID, len(all))
	for i, d := range all {
		ids[i] = d.id
	}
	return ids
}
