package api

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"openline/protocol"
)

// prefix is where the HTTP API lives.
const prefix = "/api/v1"

// openAPI describes the HTTP API; a test checks it against the handlers.
//
//go:embed openapi.json
var openAPI []byte

type route struct {
	method, path string
	handle       handler
	body         int64 // bytes that a body may have; 0: as a message
}

type handler func(http.ResponseWriter, *http.Request) error

func (s *Server) routes() []route {
	return []route{
		{method: "GET", path: "/status", handle: s.status},
		{method: "GET", path: "/peers", handle: s.peers},
		{method: "GET", path: "/topics", handle: s.topics},
		{method: "GET", path: "/feed", handle: s.feed},
		{method: "POST", path: "/posts", handle: s.post},
		{method: "POST", path: "/events", handle: s.publish},
		{method: "GET", path: "/events/{id}/holders", handle: s.holders},
		{method: "GET", path: "/bundle", handle: s.exportBundle},
		{method: "POST", path: "/bundle", handle: s.importBundle, body: s.cfg.Limits.BundleBytes},
		{method: "GET", path: "/follows", handle: s.owned(s.follows)},
		{method: "POST", path: "/follows", handle: s.owned(s.follow)},
		{method: "DELETE", path: "/follows", handle: s.owned(s.unfollow)},
		{method: "GET", path: "/key", handle: s.owned(s.key)},
		{method: "POST", path: "/key", handle: s.owned(s.setKey)},
		{method: "POST", path: "/key/export", handle: s.owned(s.exportKey)},
		{method: "GET", path: "/invites", handle: s.invites},
		{method: "POST", path: "/invites", handle: s.invite},
		{method: "DELETE", path: "/invites/{id}", handle: s.revoke},
		{method: "POST", path: "/join", handle: s.join},
		{method: "POST", path: "/doctor", handle: s.diagnose},
		{method: "GET", path: "/openapi.json", handle: s.describeAPI},
	}
}

// failure is an error with its HTTP status and what to do next.
type failure struct {
	status int
	err    error
	hint   string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// problem is the JSON form of an error. Code is a protocol.Code when an event was refused.
type problem struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  string `json:"code,omitempty"`
}

// answer turns a handler's error into a JSON answer. What no rule foresees is logged and not shown. A body may have most
// bytes.
func (s *Server) answer(handle handler, most int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, most)
		if err := handle(w, r); err != nil && r.Context().Err() == nil {
			f := asFailure(err)
			if f.status == http.StatusInternalServerError {
				s.cfg.Log.Error("a call failed", "call", r.Method+" "+r.Pattern, "error", err)
			}
			writeFailure(w, f)
		}
	}
}

// asFailure chooses the HTTP status.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &failure{http.StatusRequestEntityTooLarge, err, ""}
	}
	if h, ok := errors.AsType[*Hint](err); ok {
		return &failure{http.StatusConflict, err, h.Hint}
	}
	r, ok := errors.AsType[*protocol.Rejection](err)
	if !ok {
		if errors.Is(err, protocol.ErrPassphrase) {
			return &failure{http.StatusForbidden, err, "try again; nothing was changed"}
		}
		return &failure{http.StatusInternalServerError, err, ""}
	}
	switch r.Code {
	case protocol.OverQuota, protocol.Busy:
		return &failure{http.StatusTooManyRequests, err, ""}
	case protocol.Duplicate, protocol.Deleted:
		return &failure{http.StatusConflict, err, ""}
	case protocol.TooLarge:
		return &failure{http.StatusRequestEntityTooLarge, err, ""}
	}
	return &failure{http.StatusBadRequest, err, ""}
}

func writeFailure(w http.ResponseWriter, f *failure) {
	p := problem{Error: f.Error(), Hint: f.hint}
	if r, ok := errors.AsType[*protocol.Rejection](f.err); ok {
		p.Code = string(r.Code)
	}
	writeJSON(w, f.status, p)
}

func badRequest(hint, format string, args ...any) error {
	return &failure{http.StatusBadRequest, fmt.Errorf(format, args...), hint}
}

// readJSON reads a body that holds one JSON value and no members that v does not know.
func readJSON(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil && d.Decode(&struct{}{}) != io.EOF {
		err = errors.New("there is something after the JSON value")
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok || err == nil {
		return err
	}
	return badRequest("GET "+prefix+"/openapi.json describes the body", "the body is not what this call takes: %w", err)
}

// owned is for calls that only make sense where somebody's key and follows are.
func (s *Server) owned(handle handler) handler {
	if s.cfg.Owner != nil {
		return handle
	}
	return func(http.ResponseWriter, *http.Request) error {
		return &failure{http.StatusNotFound, errors.New("a relay has no key and follows nothing"), "use a daemon: openline daemon"}
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	st, err := s.cfg.Backend.Status(r.Context())
	if err == nil {
		writeJSON(w, http.StatusOK, st)
	}
	return err
}

func (s *Server) peers(w http.ResponseWriter, r *http.Request) error {
	st, err := s.cfg.Backend.Status(r.Context())
	if err == nil {
		writeJSON(w, http.StatusOK, st.PeerList)
	}
	return err
}

const (
	defaultTopics, maxTopics = 20, 1000
	defaultTopicsSince       = 24 * time.Hour
)

func (s *Server) topics(w http.ResponseWriter, r *http.Request) error {
	n, err := count(r, "n", defaultTopics, maxTopics)
	if err != nil {
		return err
	}
	since, err := moment(r, "since", s.cfg.Now().Add(-defaultTopicsSince))
	if err != nil {
		return err
	}
	topics, err := s.cfg.Backend.Topics(r.Context(), since, n)
	if err == nil {
		writeJSON(w, http.StatusOK, topics)
	}
	return err
}

// count reads a number from 0 to most out of the query.
func count(r *http.Request, name string, otherwise, most int) (int, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > most {
		return 0, badRequest("", "%s is not a number from 0 to %d", name, most)
	}
	return n, nil
}

// moment reads Unix seconds out of the query.
func moment(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return otherwise, nil
	}
	sec, err := strconv.ParseInt(v, 10, 64)
	if err != nil || sec < 0 || sec > 1<<53-1 {
		return time.Time{}, badRequest("", "%s is not a time in Unix seconds", name)
	}
	return time.Unix(sec, 0), nil
}

func (s *Server) post(w http.ResponseWriter, r *http.Request) error {
	var d Draft
	if err := readJSON(r, &d); err != nil {
		return err
	}
	receipt, err := s.cfg.Backend.Post(context.WithoutCancel(r.Context()), d) // who leaves has posted all the same
	if err == nil {
		writeJSON(w, http.StatusCreated, receipt)
	}
	return err
}

func (s *Server) publish(w http.ResponseWriter, r *http.Request) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	receipt, err := s.cfg.Backend.Publish(context.WithoutCancel(r.Context()), raw)
	if err == nil {
		writeJSON(w, http.StatusCreated, receipt)
	}
	return err
}

func (s *Server) follows(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Owner.Follows(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []Follow{}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (s *Server) follow(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Who string `json:"who"`
	}
	if err := readJSON(r, &body); err != nil {
		return err
	}
	return s.setFollow(w, r, body.Who, true)
}

func (s *Server) unfollow(w http.ResponseWriter, r *http.Request) error {
	return s.setFollow(w, r, r.URL.Query().Get("who"), false)
}

func (s *Server) setFollow(w http.ResponseWriter, r *http.Request, who string, on bool) error {
	f, err := s.resolve(r.Context(), who)
	if err != nil {
		return err
	}
	changed, err := s.cfg.Owner.SetFollow(r.Context(), f, on)
	switch {
	case err != nil:
		return err
	case !changed && !on:
		return &failure{http.StatusNotFound, errors.New("you do not follow that"), "openline following lists what you follow"}
	case changed && on:
		writeJSON(w, http.StatusCreated, f)
	default:
		writeJSON(w, http.StatusOK, f)
	}
	return nil
}

func (s *Server) key(w http.ResponseWriter, _ *http.Request) error {
	k, err := s.cfg.Owner.Key()
	if err == nil {
		writeJSON(w, http.StatusOK, k)
	}
	return err
}

func (s *Server) setKey(w http.ResponseWriter, r *http.Request) error {
	var c KeyChange
	if err := readJSON(r, &c); err != nil {
		return err
	}
	k, err := s.cfg.Owner.SetKey(r.Context(), c)
	if err == nil {
		writeJSON(w, http.StatusOK, k)
	}
	return err
}

func (s *Server) exportKey(w http.ResponseWriter, r *http.Request) error {
	code, err := s.cfg.Owner.ExportKey(r.Context())
	if err == nil {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, exportedKey{code})
	}
	return err
}

type exportedKey struct {
	Key string `json:"key"`
}

func (s *Server) describeAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the client may have left
	return nil
}

// trimTopic reads a topic as people write it.
func trimTopic(s string) string { return strings.ToLower(strings.TrimPrefix(s, "#")) }
