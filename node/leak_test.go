package node

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"
)

// noLeaks fails the test when goroutines that it started are left once it and its cleanups are over. Call it first.
// Tests that use it cannot run in parallel.
func noLeaks(t *testing.T) {
	t.Helper()
	before := stacks()
	t.Cleanup(func() {
		var left []string
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			left = nil
			after := stacks()
			for where, n := range after {
				if n > before[where] {
					left = append(left, where)
				}
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(end) {
				break
			}
		}
		t.Errorf("goroutines are left:\n%s", strings.Join(left, "\n"))
	})
}

// stacks counts the goroutines by the place that created them.
func stacks() map[string]int {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	count := map[string]int{}
	for _, g := range bytes.Split(buf, []byte("\n\n")) {
		i := bytes.Index(g, []byte("created by "))
		if i < 0 {
			continue
		}
		where, _, _ := strings.Cut(string(g[i:]), " in goroutine")
		count[where]++
	}
	return count
}
