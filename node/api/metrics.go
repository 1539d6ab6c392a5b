package api

import "github.com/prometheus/client_golang/prometheus"

// metrics count what happens at the door. Labels are fixed words: never a content, an address or a key.
type metrics struct {
	connections   prometheus.Gauge
	subscriptions prometheus.Gauge
	events        *prometheus.CounterVec // by verdict
	refused       *prometheus.CounterVec // by reason
	sent          prometheus.Counter
	cutOff        prometheus.Counter
}

func newMetrics(r *prometheus.Registry) metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := metrics{
		connections:   gauge("openline_api_connections", "Open websockets."),
		subscriptions: gauge("openline_api_subscriptions", "Open subscriptions."),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openline_api_events_total",
			Help: "Events from clients, by verdict."}, []string{"verdict"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openline_api_refused_requests_total",
			Help: "Requests refused before they were looked at, by reason."}, []string{"reason"}),
		sent:   counter("openline_api_sent_events_total", "Events sent to clients."),
		cutOff: counter("openline_api_cut_off_total", "Clients cut off because they read too slowly."),
	}
	r.MustRegister(m.connections, m.subscriptions, m.events, m.refused, m.sent, m.cutOff)
	return m
}
