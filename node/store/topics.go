package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"openline/protocol"
)

// topicEvents is how many of the newest notes Topics looks at, so that a busy day costs no more than a second.
const topicEvents = 100_000

// TopicCount is how active a topic was.
type TopicCount struct {
	Topic   string
	Events  int
	Authors int   // different ones
	Newest  int64 // created_at of the newest event, Unix seconds
}

// Topics returns the n most active topics of the notes (kind 1) created since then, at most the newest 100,000 of them.
// What more authors speak about comes first, so that one who posts much makes no topic.
func (s *Store) Topics(ctx context.Context, since time.Time, n int) ([]TopicCount, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	q, err := s.newQuery(ctx)
	if err != nil {
		return nil, err
	}
	defer q.close()
	counts := map[string]*topic{}
	from := since.Unix()
	f := protocol.Filter{Kinds: []uint16{protocol.KindNote}, Since: &from}
	_, err = q.union([]protocol.Filter{f}, topicEvents, func(e protocol.Event) bool {
		topics := e.Topics()
		for i, t := range topics {
			if slices.Contains(topics[:i], t) {
				continue
			}
			c := counts[t]
			if c == nil { // the first is the newest
				c = &topic{TopicCount{Topic: t, Newest: e.CreatedAt()}, map[protocol.PubKey]struct{}{}}
				counts[t] = c
			}
			c.Events++
			c.authors[e.PubKey()] = struct{}{}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return mostActive(counts, n), nil
}

type topic struct {
	TopicCount
	authors map[protocol.PubKey]struct{}
}

func mostActive(counts map[string]*topic, n int) []TopicCount {
	list := make([]TopicCount, 0, len(counts))
	for _, c := range counts {
		c.Authors = len(c.authors)
		list = append(list, c.TopicCount)
	}
	slices.SortFunc(list, func(a, b TopicCount) int {
		return cmp.Or(cmp.Compare(b.Authors, a.Authors), cmp.Compare(b.Events, a.Events), cmp.Compare(b.Newest, a.Newest),
			cmp.Compare(a.Topic, b.Topic))
	})
	return list[:max(0, min(n, len(list)))]
}
