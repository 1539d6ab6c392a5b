package api

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"openline/protocol"
)

// BenchmarkFanout100 measures live deliveries to 100 subscribers over loopback, readers on the same cores.
func BenchmarkFanout100(b *testing.B) {
	const readers, burst = 100, 50
	f := newFake()
	d := serve(b, f, nil)
	var got atomic.Int64
	var round sync.WaitGroup
	for range readers {
		c := d.dial()
		c.send(`["REQ","s",{"kinds":[1],"limit":0}]`)
		c.expect(`["EOSE","s"]`)
		go func() {
			for {
				if _, _, err := c.ws.ReadMessage(); err != nil {
					return
				}
				got.Add(1)
				round.Done()
			}
		}()
	}
	var notes []protocol.Event
	for i := range b.N * burst {
		notes = append(notes, f.note(fmt.Sprintf("%d %s", i, strings.Repeat("x", 100))))
	}
	b.ResetTimer()
	for i := range b.N {
		round.Add(readers * burst)
		f.mu.Lock()
		f.events = append(f.events, notes[i*burst:(i+1)*burst]...)
		close(f.changed)
		f.changed = make(chan struct{})
		f.mu.Unlock()
		round.Wait()
	}
	b.ReportMetric(float64(got.Load())/b.Elapsed().Seconds(), "deliveries/s")
}

// BenchmarkParseMessage measures what a frame costs before the event in it is looked at.
func BenchmarkParseMessage(b *testing.B) {
	raw := []byte(`["EVENT",` + string(newFake().note(strings.Repeat("x", 100), "topic").AppendJSON(nil)) + `]`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseMessage(raw); err != nil {
			b.Fatal(err)
		}
	}
}
