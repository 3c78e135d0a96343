package p2p

import (
	"context"
	"crypto/ed25519"
	"testing"
)

func benchPair(b *testing.B) (*Host, *Host) {
	b.Helper()
	var hosts [2]*Host
	for i, key := range []ed25519.PrivateKey{testKey("bench 0"), testKey("bench 1")} {
		h, err := New(Config{Key: key})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close() })
		hosts[i] = h
	}
	up := make(chan struct{}, 1)
	hosts[0].HandleGossip(1, func(ID, []byte) { up <- struct{}{} })
	for _, h := range hosts {
		if err := h.SetPeers(peersOf(hosts[:]...)); err != nil {
			b.Fatal(err)
		}
	}
	if err := hosts[1].Broadcast(1, nil); err != nil {
		b.Fatal(err)
	}
	<-up
	return hosts[0], hosts[1]
}

// BenchmarkSessionRoundTrip is one envelope there and one back.
func BenchmarkSessionRoundTrip(b *testing.B) {
	x, y := benchPair(b)
	back := make(chan struct{}, 1)
	y.Handle(func(from ID, frame []byte) { _ = y.Send(context.Background(), from, frame) })
	x.Handle(func(ID, []byte) { back <- struct{}{} })
	frame := make([]byte, 4<<10)
	for b.Loop() {
		if err := x.Send(context.Background(), y.ID(), frame); err != nil {
			b.Fatal(err)
		}
		<-back
	}
}

func BenchmarkRequest(b *testing.B) {
	x, y := benchPair(b)
	y.HandleRequest(1, func(_ context.Context, _ ID, body []byte) ([]byte, error) { return body, nil })
	body := make([]byte, 512)
	for b.Loop() {
		if _, err := x.Request(context.Background(), y.ID(), 1, body); err != nil {
			b.Fatal(err)
		}
	}
}
