package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
)

// publisher posts notes of many authors over several connections and notes which were answered OK true.
type publisher struct {
	t  *testing.T
	mu sync.Mutex // guards ok
	ok []string
}

// publish posts n notes to d until they are answered or the daemon is gone. It speaks to the websocket itself, because
// go-nostr calls a note published whose connection broke before the OK.
func (p *publisher) publish(d *daemon, n int) {
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			ws, _, err := websocket.DefaultDialer.Dial("ws://"+d.api, nil)
			if err != nil {
				return // the daemon is gone already
			}
			defer ws.Close()
			key := ""
			for i := range n / workers {
				if i%25 == 0 {
					key = nostr.GeneratePrivateKey()
				}
				e := nostr.Event{Kind: 1, CreatedAt: nostr.Now(), Content: fmt.Sprintf("note %d of worker %d", i, w)}
				var answer []any
				if e.Sign(key) != nil || ws.WriteJSON([]any{"EVENT", e}) != nil || ws.ReadJSON(&answer) != nil {
					return
				}
				if len(answer) < 3 || answer[0] != "OK" || answer[1] != e.ID || answer[2] != true {
					p.t.Errorf("a note was answered with %v", answer)
					return
				}
				p.mu.Lock()
				p.ok = append(p.ok, e.ID)
				p.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func (p *publisher) answered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ok)
}

// missing returns how many of the answered notes d does not have.
func (p *publisher) missing(d *daemon) int {
	p.t.Helper()
	r := dialNostr(p.t, d)
	have := map[string]bool{}
	for lo := 0; lo < len(p.ok); lo += 100 {
		ids := p.ok[lo:min(lo+100, len(p.ok))]
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		events, err := r.QuerySync(ctx, nostr.Filter{IDs: ids})
		cancel()
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range events {
			have[e.ID] = true
		}
	}
	return len(p.ok) - len(have)
}

// TestNothingAnsweredIsLostToKill kills the posting daemon and the middle node, to both of which 1,000 notes are being
// posted, in the midst of it.
func TestNothingAnsweredIsLostToKill(t *testing.T) {
	t.Parallel()
	const notes = 1000
	b := startDaemon(t)
	a := startDaemon(t, b)
	startDaemon(t, b)
	b.awaitLinks(2)
	victims := []*daemon{a, b}
	posts := make([]*publisher, len(victims))
	var wg sync.WaitGroup
	for i, d := range victims {
		posts[i] = &publisher{t: t}
		wg.Go(func() { posts[i].publish(d, notes) })
	}
	for i, d := range victims {
		await(t, "half of the notes", func() bool { return posts[i].answered() >= notes/2 })
		d.kill()
	}
	wg.Wait()
	for i, d := range victims {
		d.start()
		if n := posts[i].answered(); n == notes {
			t.Errorf("daemon %d answered all %d notes before it was killed", i, n)
		}
		t.Logf("daemon %d answered %d notes before kill -9 and lacks %d of them", i, posts[i].answered(), posts[i].missing(d))
		if n := posts[i].missing(d); n > 0 {
			t.Errorf("daemon %d lost %d notes that it had answered OK true", i, n)
		}
	}
	// The victims have new peer ids now; who joins them hears what is posted.
	d := startDaemon(t, a)
	a.awaitLinks(1)
	id := a.run("post", "after the crash")
	await(t, "the note after the crash", func() bool { return d.status().Events > 0 && contains(d, id) })

}

func contains(d *daemon, id string) bool {
	r := dialNostr(d.t, d)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	events, err := r.QuerySync(ctx, nostr.Filter{IDs: []string{id}, Limit: 1})
	return err == nil && len(events) == 1
}
