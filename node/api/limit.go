package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
)

// Rates, of the kind "first a burst, then so many a second" (spec: consensus
// §9). An address is an IPv4 address or an IPv6 /64, which is one customer.
// Loopback has none: whoever has the machine has the node.
const (
	callsPerSecond, callsBurst     = 50, 200 // a page with all its panels opens with 20 calls
	postsPerSecond, postsBurst     = 5, 50   // each may cost a signature check and a place in the log
	accountPerSecond, accountBurst = 1, 20   // a person signs slower; a bot gets 3,600 an hour
	// maxBuckets bounds the memory of one kind. When all are taken, those that
	// are full again are forgotten; when none is, strangers share one.
	maxBuckets = 16_384
)

// buckets are token buckets by key.
type buckets struct {
	perSecond, burst float64

	mu sync.Mutex
	by map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newBuckets(perSecond, burst float64) *buckets {
	return &buckets{perSecond: perSecond, burst: burst, by: map[string]bucket{}}
}

// take takes a token, or says when there will be one.
func (b *buckets) take(key string, now time.Time) (after time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x, known := b.by[key]
	if !known && len(b.by) >= maxBuckets {
		for k, x := range b.by {
			if b.filled(x, now) >= b.burst {
				delete(b.by, k)
			}
		}
		if len(b.by) >= maxBuckets {
			key = "" // the strangers' own
			x, known = b.by[key]
		}
	}
	if !known {
		x = bucket{b.burst, now}
	}
	x.tokens, x.at = b.filled(x, now), now
	if x.tokens < 1 {
		b.by[key] = x
		return time.Duration((1 - x.tokens) / b.perSecond * float64(time.Second)), false
	}
	x.tokens--
	b.by[key] = x
	return 0, true
}

func (b *buckets) filled(x bucket, now time.Time) float64 {
	return min(b.burst, x.tokens+b.perSecond*max(0, now.Sub(x.at).Seconds()))
}

// addressOf is who calls, for limits; "" for loopback and unix sockets.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.IsLoopback() {
		return ""
	}
	if a = a.Unmap(); a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a.String()
	}
	return p.String()
}

// callerKey is where limited leaves the address of a caller that has limits.
type callerKey struct{}

func hasLimits(ctx context.Context) bool { return ctx.Value(callerKey{}) != nil }

// limited sheds what one address asks too much of.
func (s *server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := addressOf(r)
		if who == "" {
			next.ServeHTTP(w, r)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, who))
		kinds := []*buckets{s.calls}
		limit := fmt.Sprintf("%d calls a second of one address", callsPerSecond)
		if r.Method == http.MethodPost {
			kinds = append(kinds, s.posts)
			limit = fmt.Sprintf("%d posts a second of one address", postsPerSecond)
		}
		for _, b := range kinds {
			if after, ok := b.take(who, time.Now()); !ok {
				s.write(w, s.shed(limit, after))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// shed is OVERLOADED with the limit that was hit and when to come again.
func (s *server) shed(limit string, after time.Duration) *client.Problem {
	p := s.problem(overloaded, "")
	p.Limit = limit
	p.After = max(1, int((after+time.Second-1)/time.Second))
	return p
}

// enter counts a stream in, or says which limit it hits.
func (s *server) enter(who string) (leave func(), p *client.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.streaming >= maxStreams:
		return nil, s.shed(fmt.Sprintf("%d streams of this node", maxStreams), 10*time.Second)
	case who != "" && s.streams[who] >= maxAddressStream:
		return nil, s.shed(fmt.Sprintf("%d streams of one address", maxAddressStream), 10*time.Second)
	}
	s.streaming++
	s.streams[who]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streaming--
		if s.streams[who]--; s.streams[who] == 0 {
			delete(s.streams, who)
		}
	}, nil
}
