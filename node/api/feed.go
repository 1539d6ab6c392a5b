package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"openline/protocol"
)

const defaultFeed, maxFeed = 50, 5000 // notes

// feedHeader tells what a feed without --topic and --author shows: "follows", "all" or "filter".
const feedHeader = "Openline-Feed"

// feedLine is one line of a feed.
type feedLine struct {
	Event json.RawMessage `json:"event"`
	Name  string          `json:"name,omitempty"` // of the author, a claim
}

// feed streams notes as lines of JSON: the newest stored ones, oldest first so that a terminal reads downwards, then
// with watch=true new ones as they come.
func (s *Server) feed(w http.ResponseWriter, r *http.Request) error {
	limit, err := count(r, "limit", defaultFeed, maxFeed)
	if err != nil {
		return err
	}
	watch, err := flag(r, "watch")
	if err != nil {
		return err
	}
	all, err := flag(r, "all")
	if err != nil {
		return err
	}
	filters, what, err := s.chosen(r, protocol.Filter{Kinds: []uint16{protocol.KindNote}, Limit: &limit}, !all)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set(feedHeader, what)
	out := &feedWriter{server: s, w: w, control: http.NewResponseController(w), names: map[protocol.PubKey]string{}}
	if err := out.control.SetReadDeadline(time.Time{}); err != nil { // a feed may last longer than the server's ReadTimeout
		return err
	}
	return out.stream(r.Context(), filters, limit, watch)
}

// chosen narrows base to the times, topics and authors that the caller names, and says how it found out. Whoever names
// none means what the user follows, if mine is set, or everything.
func (s *Server) chosen(r *http.Request, base protocol.Filter, mine bool) (filters []protocol.Filter, what string, err error) {
	var follows []Follow
	what = "filter"
	for _, t := range r.URL.Query()["topic"] {
		if err := protocol.CheckTopic(trimTopic(t)); err != nil {
			return nil, "", err
		}
		follows = append(follows, Follow{Topic: trimTopic(t)})
	}
	for _, who := range r.URL.Query()["author"] {
		f, err := s.resolve(r.Context(), strings.TrimPrefix(who, "#")) // an author, even if it looks like a topic
		if err != nil {
			return nil, "", err
		}
		follows = append(follows, f)
	}
	if len(follows) == 0 && mine && s.cfg.Owner != nil {
		if follows, err = s.cfg.Owner.Follows(r.Context()); err != nil {
			return nil, "", err
		}
		what = "follows"
	}
	if len(follows) == 0 {
		what = "all"
	}
	for name, bound := range map[string]**int64{"since": &base.Since, "until": &base.Until} {
		if at, err := moment(r, name, time.Time{}); err != nil {
			return nil, "", err
		} else if !at.IsZero() {
			sec := at.Unix()
			*bound = &sec
		}
	}
	filters, err = filtersFor(base, follows)
	return filters, what, err
}

// filtersFor adds the followed topics and authors to base: one filter for each sort, base alone for none.
func filtersFor(base protocol.Filter, follows []Follow) ([]protocol.Filter, error) {
	topics, authors := base, base
	var values []string
	for _, f := range follows {
		if f.Author == "" {
			values = append(values, f.Topic)
			continue
		}
		k, err := protocol.ParsePubKey(f.Author)
		if err != nil {
			return nil, err
		}
		authors.Authors = append(authors.Authors, k)
	}
	var filters []protocol.Filter
	if values != nil {
		topics.Tags = []protocol.TagFilter{{Letter: 't', Values: values}}
		filters = append(filters, topics)
	}
	if authors.Authors != nil {
		filters = append(filters, authors)
	}
	if filters == nil {
		filters = append(filters, base)
	}
	return filters, nil
}

func flag(r *http.Request, name string) (bool, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, badRequest("", "%s is neither true nor false", name)
	}
	return on, nil
}

// feedWriter writes lines, looking up each author's name once.
type feedWriter struct {
	server  *Server
	w       http.ResponseWriter
	control *http.ResponseController
	names   map[protocol.PubKey]string
}

func (f *feedWriter) stream(ctx context.Context, filters []protocol.Filter, limit int, watch bool) error {
	var stored []protocol.Event
	live := false
	emit := func(e protocol.Event) bool {
		if live {
			return f.line(ctx, e) && f.control.Flush() == nil
		}
		if len(stored) < limit { // each filter has the same limit
			stored = append(stored, e)
		}
		return true
	}
	caughtUp := func() bool {
		slices.Reverse(stored)
		for _, e := range stored {
			if !f.line(ctx, e) {
				return false
			}
		}
		live, stored = true, nil
		return f.control.Flush() == nil && watch
	}
	err := f.server.cfg.Backend.Follow(ctx, filters, maxFeed, emit, caughtUp)
	if errors.Is(err, ErrLagged) {
		panic(http.ErrAbortHandler) // a cut stream is no whole one
	}
	return err
}

// line writes one note; false when the caller is gone.
func (f *feedWriter) line(ctx context.Context, e protocol.Event) bool {
	name, known := f.names[e.PubKey()]
	if !known {
		name = f.server.nameOf(ctx, e.PubKey())
		f.names[e.PubKey()] = name
	}
	b, err := json.Marshal(feedLine{Event: e.AppendJSON(nil), Name: name})
	if err != nil {
		return false
	}
	_ = f.control.SetWriteDeadline(time.Now().Add(f.server.cfg.Limits.WriteTimeout)) // not offered by every ResponseWriter
	_, err = f.w.Write(append(b, '\n'))
	return err == nil
}

// nameOf returns the name in an author's newest profile, "" for none.
func (s *Server) nameOf(ctx context.Context, author protocol.PubKey) string {
	name := ""
	f := protocol.Filter{Authors: []protocol.PubKey{author}, Kinds: []uint16{protocol.KindProfile}}
	_ = s.cfg.Backend.Follow(ctx, []protocol.Filter{f}, 1, func(e protocol.Event) bool {
		name = e.ProfileName()
		return false
	}, func() bool { return false }) // without a name the key is shown
	return name
}

// resolve reads WHO: #topic, npub1…, a hex key, or the name of a followed author.
func (s *Server) resolve(ctx context.Context, who string) (Follow, error) {
	if topic, ok := strings.CutPrefix(who, "#"); ok {
		topic = strings.ToLower(topic)
		return Follow{Topic: topic}, protocol.CheckTopic(topic)
	}
	k, err := protocol.ParsePubKey(who)
	if err == nil {
		return Follow{Author: k.String(), Npub: k.Npub(), Name: s.nameOf(ctx, k)}, nil
	}
	const hint = "#topic, npub1…, 64 hex digits, or the name of someone you follow"
	if strings.HasPrefix(who, "npub1") || s.cfg.Owner == nil || who == "" {
		return Follow{}, badRequest(hint, "%w", err)
	}
	follows, err := s.cfg.Owner.Follows(ctx)
	if err != nil {
		return Follow{}, err
	}
	var found []Follow
	for _, f := range follows {
		if f.Name != "" && strings.EqualFold(f.Name, who) {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Follow{}, badRequest(hint, "nobody you follow has that name")
	}
	return Follow{}, badRequest("use the npub1… of the one you mean: openline following lists them", "several whom you follow have that name")
}
