package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"openline/protocol"
)

// root is a websocket for clients, the description of NIP-11 for programs, and a word for people.
func (s *Server) root(w http.ResponseWriter, r *http.Request) {
	switch {
	case websocket.IsWebSocketUpgrade(r):
		s.websocket(w, r)
	case strings.Contains(r.Header.Get("Accept"), "application/nostr+json"):
		s.describe(w)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "This is Openline, a message relay. Point a Nostr client at ws://%s\n", r.Host)
	}
}

// information is the document of NIP-11.
type information struct {
	Name          string     `json:"name"`
	Description   string     `json:"description"`
	SupportedNIPs []int      `json:"supported_nips"`
	Software      string     `json:"software"`
	Version       string     `json:"version"`
	Limitation    limitation `json:"limitation"`
}

type limitation struct {
	MaxMessageLength    int64 `json:"max_message_length"`
	MaxSubscriptions    int   `json:"max_subscriptions"`
	MaxLimit            int   `json:"max_limit"`
	DefaultLimit        int   `json:"default_limit"`
	MaxSubidLength      int   `json:"max_subid_length"`
	MaxEventTags        int   `json:"max_event_tags"`
	MaxContentLength    int   `json:"max_content_length"`
	MinPoWDifficulty    int   `json:"min_pow_difficulty"`
	AuthRequired        bool  `json:"auth_required"`
	PaymentRequired     bool  `json:"payment_required"`
	RestrictedWrites    bool  `json:"restricted_writes"`
	CreatedAtUpperLimit int64 `json:"created_at_upper_limit"`
}

func (s *Server) describe(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*") // the guard has let this page through
	w.Header().Set("Content-Type", "application/nostr+json")
	l := s.cfg.Limits
	writeJSON(w, http.StatusOK, information{
		Name:          "openline",
		Description:   "Notes of at most 140 characters, flooded over a peer-to-peer mesh. Kinds other than 0, 1, 5, 6 and 7 stay on this node.",
		SupportedNIPs: []int{1, 9, 11, 13, 40, 70, 77},
		Software:      "openline",
		Version:       s.cfg.Version,
		Limitation: limitation{
			MaxMessageLength: l.MessageBytes, MaxSubscriptions: l.Subscriptions, MaxLimit: l.StoredPerFilter, DefaultLimit: l.StoredPerFilter,
			MaxSubidLength: maxSubscriptionID, MaxEventTags: protocol.MaxTags, MaxContentLength: protocol.MaxNoteLength,
			CreatedAtUpperLimit: int64(protocol.LiveAhead / time.Second),
		},
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of our own types
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client may have left
}
