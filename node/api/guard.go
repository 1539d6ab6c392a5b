package api

import (
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// guard decides who may speak to the door at all.
type guard struct {
	cfg     Config
	refused *prometheus.CounterVec // by reason
	told    *atomic.Bool           // the log knows about refused pages: a page can ask as often as it likes
}

// page refuses requests that somebody else's web page makes in the user's browser: by the Host, which DNS rebinding
// cannot make ours, and by the Origin. It closes the connection without a byte, which to the page looks as if nothing
// listened here.
func (g guard) page(next http.Handler) http.Handler {
	g.told = &atomic.Bool{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reason := ""
		switch {
		case !g.hostAllowed(r):
			reason = "host"
		case !g.originAllowed(r):
			reason = "origin"
		}
		if reason == "" {
			if !g.share(w, r) {
				next.ServeHTTP(w, r)
			}
			return
		}
		g.refused.WithLabelValues(reason).Inc()
		if !g.told.Swap(true) {
			g.cfg.Log.Warn("a web page or another name for this machine was refused; allow it with --allow-origin or --allow-host if it is yours")
		}
		panic(http.ErrAbortHandler)
	})
}

// hostAllowed: what a relay shows to everybody may be asked for under any name, its API and metrics may not.
func (g guard) hostAllowed(r *http.Request) bool {
	if g.cfg.Public && (r.URL.Path == "/" || r.URL.Path == "/healthz") {
		return true
	}
	name := hostName(r.Host)
	return strings.EqualFold(name, "localhost") || isLoopback(name) ||
		slices.ContainsFunc(g.cfg.AllowHosts, func(h string) bool { return strings.EqualFold(h, name) })
}

// originAllowed: browsers name the page's origin in all but the simplest requests, and for those they say in
// Sec-Fetch-Site whether the page is another one. What the user types or clicks to (navigate) shows nothing to a page.
func (g guard) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		other := site == "cross-site" || site == "same-site"
		typed := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
		return !other || typed || g.anyOrigin(r)
	}
	return origin == "http://"+r.Host || origin == "https://"+r.Host && g.cfg.Public ||
		slices.Contains(g.cfg.AllowOrigins, origin) || g.anyOrigin(r)
}

// anyOrigin: a relay serves all pages, but never its API.
func (g guard) anyOrigin(r *http.Request) bool {
	return slices.Contains(g.cfg.AllowOrigins, "*") || g.cfg.Public && r.URL.Path == "/"
}

// share tells the browser of an allowed page that it may read the answer (CORS, Fetch standard). It returns true when
// that was the whole question, a preflight.
func (g guard) share(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// user reports whether a connection is another user's of this machine, which a daemon refuses.
func (g guard) user(c net.Conn) bool {
	if g.cfg.Public || !foreignUser(c) {
		return false
	}
	g.refused.WithLabelValues("user").Inc()
	return true
}

// local lets a relay's own machine alone through.
func (g guard) local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.cfg.Public && !isLoopback(hostName(r.RemoteAddr)) {
			g.refused.WithLabelValues("host").Inc()
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// token lets those through who can read the owner's files.
func (g guard) token(next http.Handler) http.Handler {
	want := []byte("Bearer " + g.cfg.Token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		g.refused.WithLabelValues("token").Inc()
		w.Header().Set("WWW-Authenticate", "Bearer")
		writeFailure(w, &failure{http.StatusUnauthorized, errors.New("the token is missing or wrong"),
			"it stands in the file token in the daemon's data directory: use the same --data as the daemon"})
	})
}

// hostName takes the port and the brackets of IPv6 away.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

func isLoopback(name string) bool {
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
