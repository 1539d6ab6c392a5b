package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"openline/protocol"
)

// ImportReport says what became of a bundle.
type ImportReport struct {
	Events  int            `json:"events"` // in whole frames
	New     int            `json:"new"`
	Known   int            `json:"known"`
	Refused map[string]int `json:"refused"` // by code of protocol/SPEC.md
	Damage  []string       `json:"damage"`  // what could not be read
}

// importBundle takes a bundle through the node's door, frame by frame. Whoever breaks off has imported what came so far,
// and can repeat the whole: what is known is passed over before its signature is checked.
func (s *Server) importBundle(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // not offered by every ResponseWriter; a large bundle takes minutes
	in, err := protocol.NewBundleReader(r.Body)
	if err != nil {
		return badRequest("openline bundle verify FILE says more", "%w", err)
	}
	if h := in.Header(); h.Network != "" && h.Network != s.cfg.Network {
		return &failure{http.StatusConflict, fmt.Errorf("the bundle is of the network %s and this node of %s", h.Network, s.cfg.Network),
			"run a daemon with --network " + h.Network + " and a --data directory of its own"}
	}
	report := ImportReport{Refused: map[string]int{}, Damage: []string{}}
	for {
		frame, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badRequest("what came before is imported; repeat the whole to go on", "%w", err)
		}
		if err := s.importFrame(r.Context(), frame, &report); err != nil {
			return err
		}
	}
	for _, d := range in.Damage() {
		report.Damage = append(report.Damage, d.Text)
	}
	_ = control.SetWriteDeadline(time.Now().Add(s.cfg.Limits.WriteTimeout)) // the same
	writeJSON(w, http.StatusOK, report)
	return nil
}

// importFrame imports some hundred events, several at once.
func (s *Server) importFrame(ctx context.Context, frame protocol.BundleFrame, report *ImportReport) error {
	var mu sync.Mutex // guards report
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16 * runtime.GOMAXPROCS(0)) // the writer syncs them together
	for _, envelope := range frame.Envelopes {
		g.Go(func() error {
			err := s.cfg.Archive.Import(ctx, envelope)
			rejection, refused := errors.AsType[*protocol.Rejection](err)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				report.New++
			case refused && rejection.Code == protocol.Duplicate:
				report.Known++
			case refused:
				report.Refused[string(rejection.Code)]++
			default:
				return err
			}
			report.Events++
			return nil
		})
	}
	return g.Wait()
}

// exportBundle streams a bundle of what travels and matches the query. A stream that breaks off is a bundle that is cut.
func (s *Server) exportBundle(w http.ResponseWriter, r *http.Request) error {
	follows, err := flag(r, "follows")
	if err != nil {
		return err
	}
	filters, _, err := s.chosen(r, protocol.Filter{}, follows)
	if err != nil {
		return err
	}
	most, err := bytesIn(r, "max")
	if err != nil {
		return err
	}
	var newest room
	if most > 0 {
		if newest, err = s.newestWithin(r.Context(), filters, most); err != nil {
			return err
		}
	}
	h := protocol.BundleHeader{Network: s.cfg.Network, To: protocol.MaxBundleTime}
	if f := filters[0]; f.Since != nil {
		h.From = *f.Since
	}
	if f := filters[0]; f.Until != nil {
		h.To = *f.Until
	}
	w.Header().Set("Content-Type", "application/vnd.openline.bundle")
	out, err := protocol.NewBundleWriter(&patientWriter{w, http.NewResponseController(w), s.cfg.Limits.WriteTimeout}, h)
	if err == nil {
		err = s.writeBundle(r.Context(), filters, newest, out)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // a cut stream is no whole one
	}
	return nil
}

// writeBundle writes what matches and has room.
func (s *Server) writeBundle(ctx context.Context, filters []protocol.Filter, newest room, out *protocol.BundleWriter) error {
	var failed error
	err := s.cfg.Archive.Export(ctx, filters, func(e protocol.Event) bool {
		if newest.has(e) {
			failed = out.Add(e)
		}
		return failed == nil
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	return out.Close()
}

// room says which of the newest events fit: all later than a second, and some of that second. The zero room has all.
type room struct {
	second int64
	some   map[protocol.ID]bool
}

func (r room) has(e protocol.Event) bool {
	return r.some == nil || e.CreatedAt() > r.second || e.CreatedAt() == r.second && r.some[e.ID()]
}

// bundleOverhead is more than a bundle adds to an event that it cannot compress, and bundleFixed to all of them.
const bundleOverhead, bundleFixed = 5, 400

// newestWithin says which of the newest events fit into most bytes together.
func (s *Server) newestWithin(ctx context.Context, filters []protocol.Filter, most int64) (newest room, err error) {
	left, events, full := most-bundleFixed, 0, false
	newest.some = map[protocol.ID]bool{}
	err = s.cfg.Backend.Follow(ctx, filters, math.MaxInt32, func(e protocol.Event) bool {
		if !protocol.Travels(e.Kind()) {
			return true
		}
		if left -= int64(len(e.AppendEnvelope(nil)) + bundleOverhead); left < 0 {
			full = true
			return false
		}
		if e.CreatedAt() != newest.second {
			newest.second = e.CreatedAt()
			clear(newest.some)
		}
		newest.some[e.ID()] = true
		events++
		return true
	}, func() bool { return false })
	if err == nil && full && events == 0 {
		err = badRequest("a few hundred bytes are the least", "not even one event fits into %d bytes", most)
	}
	return newest, err
}

// bytesIn reads a number of bytes out of the query, 0 for none.
func bytesIn(r *http.Request, name string) (int64, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 {
		return 0, badRequest("", "%s is not a number of bytes", name)
	}
	return n, nil
}

// patientWriter gives each write its own deadline.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (w *patientWriter) Write(b []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // not offered by every ResponseWriter
	return w.ResponseWriter.Write(b)
}

// Holders says how many other nodes hold an event.
type Holders struct {
	ID     string `json:"id"`
	HeldBy int    `json:"held_by"` // at least
}

const maxHoldersWait = 50 // seconds, below what proxies and servers allow a call

// holders waits, if asked to, until so many nodes hold an event.
func (s *Server) holders(w http.ResponseWriter, r *http.Request) error {
	id, err := protocol.ParseID(r.PathValue("id"))
	if err != nil {
		return badRequest("openline feed --json shows ids", "%w", err)
	}
	want, err := count(r, "want", 0, 1000)
	if err != nil {
		return err
	}
	seconds, err := count(r, "wait", 0, maxHoldersWait)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	held, err := s.cfg.Archive.Held(ctx, id, want)
	switch {
	case errors.Is(err, ErrUnknown):
		return &failure{http.StatusNotFound, err, "only what was posted through this daemon is watched"}
	case err != nil && ctx.Err() == nil:
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.Limits.WriteTimeout)) // not offered by every ResponseWriter
	writeJSON(w, http.StatusOK, Holders{id.String(), held})
	return nil
}

// BundleQuery says what a bundle shall carry; zero: everything.
type BundleQuery struct {
	Topics  []string
	Authors []string // WHO
	Follows bool     // what the user follows
	Since   time.Time
	Until   time.Time
	Max     int64 // bytes: the newest that fit; 0: all
}

// Export writes a bundle to w. An error says that it is cut.
func (c *Client) Export(ctx context.Context, q BundleQuery, w io.Writer) error {
	v := choice(q.Topics, q.Authors, q.Since, q.Until)
	if q.Follows {
		v.Set("follows", "true")
	}
	if q.Max > 0 {
		v.Set("max", strconv.FormatInt(q.Max, 10))
	}
	return c.do(ctx, "GET", "/bundle", v, nil, func(resp *http.Response) error {
		if _, err := io.Copy(w, resp.Body); err != nil {
			return fmt.Errorf("read the bundle: %w", err)
		}
		return nil
	})
}

// Import gives a bundle to the daemon. Interrupted, it has imported what came so far.
func (c *Client) Import(ctx context.Context, bundle io.Reader) (ImportReport, error) {
	return call[ImportReport](ctx, c, "POST", "/bundle", nil, bundle)
}

// Holders waits up to that long until at least want nodes hold an event, and returns how many do.
func (c *Client) Holders(ctx context.Context, id string, want int, wait time.Duration) (Holders, error) {
	seconds := min(maxHoldersWait, max(0, int(math.Ceil(wait.Seconds()))))
	q := url.Values{"want": {strconv.Itoa(want)}, "wait": {strconv.Itoa(seconds)}}
	return call[Holders](ctx, c, "GET", "/events/"+url.PathEscape(id)+"/holders", q, nil)
}
