// Package ratelimit stands in for github.com/juju/ratelimit, which is LGPL and which REALITY's library links for a
// limit of its fallback that we do not set. It has what that library calls.
package ratelimit

import (
	"sync"
	"time"
)

// Bucket lets through rate bytes a second on average, and capacity at once.
type Bucket struct {
	rate     float64
	capacity int64

	mu   sync.Mutex // guards the field below
	full time.Time  // when the bucket is full again
}

// NewBucketWithRate returns a full bucket.
func NewBucketWithRate(rate float64, capacity int64) *Bucket {
	return &Bucket{rate: rate, capacity: capacity}
}

// Wait takes n bytes and returns when they may pass.
func (b *Bucket) Wait(n int64) {
	b.mu.Lock()
	now := time.Now()
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(time.Duration(float64(n) / b.rate * float64(time.Second)))
	wait := b.full.Sub(now) - time.Duration(float64(b.capacity)/b.rate*float64(time.Second))
	b.mu.Unlock()
	time.Sleep(wait)
}
