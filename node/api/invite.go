package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Inviter lets others in, and follows the invites of others.
type Inviter interface {
	Invite(ctx context.Context, d InviteDraft) (Invite, error)
	Invites(ctx context.Context) ([]Issued, error)
	Revoke(ctx context.Context, id string) (Issued, error)
	Join(ctx context.Context, link string) (Joined, error)
}

// InviteDraft says for whom an invite is to be.
type InviteDraft struct {
	Uses     int           // people; 0: any number
	Lifetime time.Duration // within which they have to come
	Standing bool          // for an address that is published: its token itself lets in, for as long as the invite holds
}

// Issued is an invite as its maker sees it, without the secret.
type Issued struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"` // 0: any number
	Joined  int       `json:"joined"`
	Parent  string    `json:"parent,omitempty"` // the invite of whoever asked for this one
	Revoked bool      `json:"revoked"`
	Over    bool      `json:"over"` // nobody new is let in: used up, expired or revoked
}

// Invite is a new invite. Its link is a secret, and is not kept.
type Invite struct {
	Issued
	Link  string `json:"link"`
	Peers int    `json:"peers"` // that it leads to
}

// Joined says what an invite brought.
type Joined struct {
	Network  string   `json:"network"`
	Peers    int      `json:"peers"`
	Carriers []string `json:"carriers"` // by which they can be reached
}

// inviteRequest is the JSON form of an InviteDraft.
type inviteRequest struct {
	Uses     int   `json:"uses"`
	Seconds  int64 `json:"seconds"`
	Standing bool  `json:"standing"`
}

type joinRequest struct {
	Link string `json:"link"`
}

func (s *Server) invite(w http.ResponseWriter, r *http.Request) error {
	var q inviteRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	if q.Seconds < 0 || q.Seconds > 400*24*3600 {
		return &failure{http.StatusBadRequest, fmt.Errorf("seconds: %d is no lifetime", q.Seconds), "seconds goes up to a year"}
	}
	i, err := s.cfg.Inviter.Invite(r.Context(), InviteDraft{Uses: q.Uses, Lifetime: time.Duration(q.Seconds) * time.Second, Standing: q.Standing})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, i)
	return nil
}

func (s *Server) invites(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Inviter.Invites(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) error {
	i, err := s.cfg.Inviter.Revoke(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, i)
	return nil
}

func (s *Server) join(w http.ResponseWriter, r *http.Request) error {
	var q joinRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	j, err := s.cfg.Inviter.Join(r.Context(), q.Link)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, j)
	return nil
}

// Invite makes an invite.
func (c *Client) Invite(ctx context.Context, d InviteDraft) (Invite, error) {
	return call[Invite](ctx, c, "POST", "/invites", nil, inviteRequest{d.Uses, int64(d.Lifetime / time.Second), d.Standing})
}

// Invites lists the invites that the node has made.
func (c *Client) Invites(ctx context.Context) ([]Issued, error) {
	return call[[]Issued](ctx, c, "GET", "/invites", nil, nil)
}

// Revoke ends an invite.
func (c *Client) Revoke(ctx context.Context, id string) (Issued, error) {
	return call[Issued](ctx, c, "DELETE", "/invites/"+url.PathEscape(id), nil, nil)
}

// Join takes up an invite.
func (c *Client) Join(ctx context.Context, link string) (Joined, error) {
	return call[Joined](ctx, c, "POST", "/join", nil, joinRequest{link})
}
