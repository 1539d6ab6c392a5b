package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"openline/protocol"
)

// Client speaks to a daemon's HTTP API. Its errors are *Hint as the daemon sent them, with a *protocol.Rejection within
// when an event was refused; ErrNoDaemon when nothing answers; or a context's.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient returns a client for the daemon at host:port, which is shown token.
func NewClient(address, token string) *Client {
	// No proxy: what the user says to the own daemon goes nowhere else, whatever the environment says.
	t := &http.Transport{Proxy: nil, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.SetWriteBuffer(readBuffer) // a wish: how far an import is shall be seen
		}
		return conn, err
	}}
	return &Client{base: "http://" + address, token: token, http: &http.Client{Transport: t}}
}

// do makes one call and hands the answer to read. ok statuses are 200 and 201.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any, read func(*http.Response) error) error {
	payload, raw := body.(io.Reader)
	if body != nil && !raw {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		payload = bytes.NewReader(b)
	}
	u := c.base + prefix + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, u, payload)
	if err != nil {
		return &Hint{fmt.Errorf("the daemon's address: %w", err), "name it as --api HOST:PORT"}
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(r)
	if err != nil {
		return reachError(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return readProblem(resp)
	}
	return read(resp)
}

// reachError tells "nothing listens there" from other trouble.
func reachError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("%w (%w)", ErrNoDaemon, op.Err)
	}
	return &Hint{fmt.Errorf("talk to the daemon: %w", err), "is it openline that listens there? name another address with --api"}
}

// readProblem turns the daemon's JSON error back into what it was.
func readProblem(resp *http.Response) error {
	var p problem
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(raw, &p) != nil || p.Error == "" {
		return &Hint{fmt.Errorf("the daemon answered %s", resp.Status), "is it openline that listens there?"}
	}
	if p.Code != "" {
		return &Hint{&protocol.Rejection{Code: protocol.Code(p.Code), Reason: p.Error}, p.Hint}
	}
	return &Hint{errors.New(p.Error), p.Hint}
}

// call makes a call whose answer is one JSON value.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (v T, err error) {
	err = c.do(ctx, method, path, query, body, func(resp *http.Response) error {
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		return nil
	})
	return v, err
}

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, "GET", "/status", nil, nil)
}

// Topics asks for the n most active topics since then.
func (c *Client) Topics(ctx context.Context, since time.Time, n int) ([]Topic, error) {
	q := url.Values{"since": {strconv.FormatInt(since.Unix(), 10)}, "n": {strconv.Itoa(n)}}
	return call[[]Topic](ctx, c, "GET", "/topics", q, nil)
}

// Post has the daemon sign and publish a note.
func (c *Client) Post(ctx context.Context, d Draft) (Receipt, error) {
	return call[Receipt](ctx, c, "POST", "/posts", nil, d)
}

// Key asks whose key signs.
func (c *Client) Key(ctx context.Context) (Key, error) {
	return call[Key](ctx, c, "GET", "/key", nil, nil)
}

// SetKey makes, imports, protects or opens the key.
func (c *Client) SetKey(ctx context.Context, k KeyChange) (Key, error) {
	return call[Key](ctx, c, "POST", "/key", nil, k)
}

// ExportKey asks for the secret key: nsec1… or ncryptsec1….
func (c *Client) ExportKey(ctx context.Context) (string, error) {
	k, err := call[exportedKey](ctx, c, "POST", "/key/export", nil, nil)
	return k.Key, err
}

// Follows asks what the user follows.
func (c *Client) Follows(ctx context.Context) ([]Follow, error) {
	return call[[]Follow](ctx, c, "GET", "/follows", nil, nil)
}

// Follow starts following who: #topic, npub1…, hex, or a followed author's name.
func (c *Client) Follow(ctx context.Context, who string) (Follow, error) {
	return call[Follow](ctx, c, "POST", "/follows", nil, map[string]string{"who": who})
}

// Unfollow ends that.
func (c *Client) Unfollow(ctx context.Context, who string) (Follow, error) {
	return call[Follow](ctx, c, "DELETE", "/follows", url.Values{"who": {who}}, nil)
}

// FeedQuery says what to show. Without Topics, Authors and All it is what the user follows, or everything when that is
// nothing.
type FeedQuery struct {
	Topics, Authors []string // authors as WHO
	Since, Until    time.Time
	Limit           int
	Watch, All      bool
}

// FeedItem is one note and what its author calls themselves.
type FeedItem struct {
	Event protocol.Event
	Name  string
}

// choice is the part of a query that Server.chosen reads.
func choice(topics, authors []string, since, until time.Time) url.Values {
	q := url.Values{"topic": topics, "author": authors}
	for name, at := range map[string]time.Time{"since": since, "until": until} {
		if !at.IsZero() {
			q.Set(name, strconv.FormatInt(at.Unix(), 10))
		}
	}
	return q
}

// Feed calls show with each note, the oldest first, and with Watch goes on until ctx ends or show returns an error.
// Every event is verified once more here.
func (c *Client) Feed(ctx context.Context, f FeedQuery, show func(FeedItem) error) error {
	q := choice(f.Topics, f.Authors, f.Since, f.Until)
	q.Set("limit", strconv.Itoa(f.Limit))
	q.Set("watch", strconv.FormatBool(f.Watch))
	q.Set("all", strconv.FormatBool(f.All))
	return c.do(ctx, "GET", "/feed", q, nil, func(resp *http.Response) error {
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l feedLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				return fmt.Errorf("read the feed: %w", err)
			}
			e, err := protocol.ParseJSON(l.Event, protocol.Check{Scope: protocol.Client, Now: time.Now()})
			if r, ok := errors.AsType[*protocol.Rejection](err); ok && !r.Code.Static() {
				continue // expired on its way
			}
			if err != nil {
				return fmt.Errorf("read the feed: %w", err)
			}
			if err := show(FeedItem{e, l.Name}); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := lines.Err(); err != nil {
			return &Hint{fmt.Errorf("the feed broke off: %w", err), "the daemon was stopped, or this program read too slowly; start it again"}
		}
		if f.Watch {
			return &Hint{errors.New("the daemon ended the feed"), "it was stopped; start it again with: openline daemon"}
		}
		return nil
	})
}
