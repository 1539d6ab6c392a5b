package node

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registerMetrics shows the counters of the parts. No label tells a content, an address or a key.
func (n *Node) registerMetrics(r *prometheus.Registry) {
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value *atomic.Uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value.Load()) }))
	}
	gauge("openline_peers", "Connected peers.", func() float64 { return float64(len(n.host.Network().Peers())) })
	gauge("openline_mesh_peers", "Peers with a mesh link in any shard.", func() float64 { return float64(len(n.mesh.Linked())) })
	gauge("openline_store_events", "Events kept.", func() float64 { return float64(n.store.Stats().Events) })
	gauge("openline_store_bytes", "Disk space used by events.", func() float64 { return float64(n.store.Stats().Bytes) })
	gauge("openline_outbox_events", "Own events that went to no peer yet.", func() float64 { return float64(n.store.Stats().Outbox) })
	c := n.mesh.Count()
	counter("openline_mesh_delivered_total", "Messages accepted from the mesh or published.", &c.Delivered)
	counter("openline_mesh_duplicates_total", "Messages that came once more.", &c.Duplicates)
	counter("openline_mesh_rejected_total", "Messages that no honest node sends.", &c.Rejected)
	counter("openline_mesh_ignored_total", "Messages known, stale, over quota or over budget.", &c.Ignored)
	counter("openline_mesh_throttled_total", "Messages over one link's budget.", &c.Throttled)
	counter("openline_mesh_dropped_total", "RPCs and messages lost to a full queue.", &c.Dropped)
	counter("openline_mesh_sent_bytes_total", "Bytes of RPCs handed to peers.", &c.SentBytes)
	gauge("openline_store_evicted_events", "Events that went because they were old or too many.", func() float64 { return float64(n.store.Stats().Evicted) })
	gauge("openline_history_peers", "Peers with whom history is exchanged.", func() float64 { return float64(n.history.Links()) })
	h := &n.history.Count
	counter("openline_history_sessions_total", "Comparisons with peers that came to their end.", &h.Sessions)
	counter("openline_history_recovered_total", "Events that came through history and were new.", &h.Recovered)
	counter("openline_history_refused_total", "Events from history that were not taken.", &h.Refused)
	counter("openline_history_sent_bytes_total", "Bytes of history sent.", &h.Sent)
	counter("openline_history_received_bytes_total", "Bytes of history received.", &h.Received)
	counter("openline_history_dropped_total", "Peers dropped because they lied or stalled.", &h.Dropped)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}
