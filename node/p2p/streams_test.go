package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// rogue is a member with a libp2p host of its own making.
func rogue(t *testing.T) (*Host, host.Host, ID) {
	t.Helper()
	h := newTestHost(t, t.Name(), silenceReset)
	key := testKey("rogue " + t.Name())
	if err := h.SetPeers([]Peer{{ID: idOf(key), Role: Member}}); err != nil {
		t.Fatal(err)
	}
	s := stranger(t, key)
	if err := connect(s, h); err != nil {
		t.Fatal(err)
	}
	return h, s, idOf(key)
}

func TestFramesAreOrdered(t *testing.T) {
	const frames = 1000
	hosts := mesh(t, 2)
	var got []uint32
	done := make(chan struct{})
	// Only one goroutine calls the handler for one peer, so got needs no lock.
	hosts[1].Handle(func(from ID, frame []byte) {
		if from != hosts[0].ID() {
			t.Errorf("frame from %x", from)
		}
		if got = append(got, binary.BigEndian.Uint32(frame)); len(got) == frames {
			close(done)
		}
	})
	for i := range frames {
		frame := make([]byte, 4+i%5000)
		binary.BigEndian.PutUint32(frame, uint32(i))
		if err := hosts[0].Send(context.Background(), hosts[1].ID(), frame); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, "all frames", done)
	for i, n := range got {
		if n != uint32(i) {
			t.Fatalf("frame %d came as number %d", n, i)
		}
	}
	out := &hosts[0].link(hosts[1].pid).out
	await(t, "all frames acknowledged", out.empty)
}

// The connection is cut again and again in the middle of the flow; every frame
// arrives once and in order all the same.
func TestFramesSurviveReconnects(t *testing.T) {
	const frames = 300
	hosts := mesh(t, 2)
	var got atomic.Int32
	done := make(chan struct{})
	hosts[1].Handle(func(_ ID, frame []byte) {
		want := got.Add(1) - 1
		if n := binary.BigEndian.Uint32(frame); n != uint32(want) {
			t.Errorf("got frame %d, want %d", n, want)
		}
		if want == frames-1 {
			close(done)
		}
	})
	for i := range frames {
		frame := make([]byte, 8<<10)
		binary.BigEndian.PutUint32(frame, uint32(i))
		if err := hosts[0].Send(context.Background(), hosts[1].ID(), frame); err != nil {
			t.Fatal(err)
		}
		if i%100 == 50 {
			await(t, "the flow runs", func() bool { return int(got.Load()) > i-50 })
			if err := hosts[i/100%2].host.Network().ClosePeer(hosts[1-i/100%2].pid); err != nil {
				t.Fatal(err)
			}
		}
	}
	receive(t, "all frames", done)
}

func TestFramesWaitForHandle(t *testing.T) {
	hosts := mesh(t, 2)
	if err := hosts[0].Send(context.Background(), hosts[1].ID(), []byte("early")); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	hosts[1].Handle(func(_ ID, f []byte) { got <- string(f) })
	if f := receive(t, "the early frame", got); f != "early" {
		t.Fatalf("got %q", f)
	}
}

func TestSendRefusals(t *testing.T) {
	h := newTestHost(t, "sender", silenceReset)
	away := idOf(testKey("away"))
	if err := h.SetPeers([]Peer{{ID: away, Role: Member}}); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := h.Send(ctx, away, make([]byte, MaxFrame+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversize frame: %v", err)
	}
	for range maxQueueBytes / MaxFrame {
		if err := h.Send(ctx, away, make([]byte, MaxFrame)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Send(ctx, away, []byte{1}); !errors.Is(err, ErrQueueFull) {
		t.Errorf("full by bytes: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := h.Send(cancelled, away, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	o := outbox{wake: make(chan struct{}, 1)}
	now := time.Unix(1000, 0)
	for range maxQueueCount {
		if err := o.push(nil, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.push(nil, now); !errors.Is(err, ErrQueueFull) {
		t.Errorf("full by count: %v", err)
	}
	o.take(now)
	if err := o.acknowledge(maxQueueCount + 1); !errors.Is(err, errBadAck) {
		t.Errorf("acknowledgement of the future: %v", err)
	}
	if err := o.acknowledge(maxQueueCount); err != nil || len(o.frames) != maxQueueCount-1 {
		t.Errorf("an acknowledgement drops what was not sent: %d left, %v", len(o.frames), err)
	}
	if err := o.push(nil, now.Add(frameLife+1)); err != nil || len(o.frames) != 1 {
		t.Errorf("old frames are kept: %d, %v", len(o.frames), err)
	}
}

func TestOversizeFrameIsRefused(t *testing.T) {
	h, s, id := rogue(t)
	got := make(chan string, 1)
	h.Handle(func(_ ID, f []byte) { got <- string(f) })

	st := rawStream(t, s, h, tssProtocol)
	header := make([]byte, queueNameSize+frameHeaderSize)
	binary.BigEndian.PutUint32(header[queueNameSize+8:], MaxFrame+1)
	// The body is never sent: the refusal must not wait for it.
	if _, err := st.Write(header); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Fatalf("the stream ends with %v, want a reset", err)
	}
	if n := h.Refused(RefusedFrameSize); n != 1 {
		t.Fatalf("%d refusals", n)
	}
	// The host lives, and so does the connection.
	st = rawStream(t, s, h, tssProtocol)
	binary.BigEndian.PutUint32(header[queueNameSize+8:], 2)
	if _, err := st.Write(append(header, "ok"...)); err != nil {
		t.Fatal(err)
	}
	if f := receive(t, "a frame", got); f != "ok" || !h.Connected(id) {
		t.Fatalf("after the refusal: frame %q, connected %v", f, h.Connected(id))
	}
	var ack [ackSize]byte
	if _, err := io.ReadFull(st, ack[:]); err != nil || binary.BigEndian.Uint64(ack[:]) != 1 {
		t.Fatalf("acknowledgement %x, %v", ack, err)
	}
}

func TestTooManyStreamsAreRefused(t *testing.T) {
	h, s, _ := rogue(t)
	for range maxRaft + maxClosing {
		st := rawStream(t, s, h, raftProtocol)
		if _, err := st.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		c, err := h.Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	st := rawStream(t, s, h, raftProtocol)
	if _, err := st.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Fatalf("the stream ends with %v, want a reset", err)
	}
	if n := h.Refused(RefusedStreams); n != 1 {
		t.Fatalf("%d refusals", n)
	}
}

func TestRequest(t *testing.T) {
	hosts := mesh(t, 2)
	client, server := hosts[0], hosts[1]
	ctx := context.Background()
	server.HandleRequest(1, func(_ context.Context, from ID, body []byte) ([]byte, error) {
		if from != client.ID() {
			t.Errorf("request from %x", from)
		}
		return append([]byte("re: "), body...), nil
	})
	server.HandleRequest(2, func(context.Context, ID, []byte) ([]byte, error) {
		return nil, fmt.Errorf("no leader: %w", &RemoteError{Code: CodeFirstFree + 3, Text: "ask another"})
	})
	server.HandleRequest(3, func(context.Context, ID, []byte) ([]byte, error) {
		return nil, errors.New(strings.Repeat("x", 2*maxErrorText))
	})
	server.HandleRequest(4, func(context.Context, ID, []byte) ([]byte, error) {
		return make([]byte, MaxRequest+1), nil
	})
	server.HandleRequest(5, func(_ context.Context, _ ID, body []byte) ([]byte, error) { return body, nil })

	if reply, err := client.Request(ctx, server.ID(), 1, []byte("hello")); err != nil || string(reply) != "re: hello" {
		t.Fatalf("%q, %v", reply, err)
	}
	full := bytes.Repeat([]byte{7}, MaxRequest)
	if reply, err := client.Request(ctx, server.ID(), 5, full); err != nil || !bytes.Equal(reply, full) {
		t.Fatalf("%d bytes, %v", len(reply), err)
	}
	for kind, code := range map[byte]byte{2: CodeFirstFree + 3, 3: CodeFailed, 4: CodeTooLarge, 9: CodeUnknownKind} {
		_, err := client.Request(ctx, server.ID(), kind, nil)
		remote, ok := errors.AsType[*RemoteError](err)
		if !ok || remote.Code != code || len(remote.Text) > maxErrorText {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
	if _, err := client.Request(ctx, server.ID(), 1, make([]byte, MaxRequest+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversize request: %v", err)
	}
	if _, err := client.Request(ctx, idOf(testKey("nobody")), 1, nil); !errors.Is(err, ErrNotMember) {
		t.Errorf("request to a stranger: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server is gone", func() bool { return !client.Connected(server.ID()) })
	if _, err := client.Request(ctx, server.ID(), 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("request to one who left: %v", err)
	}
}

func TestRequestsInFlightAreLimited(t *testing.T) {
	hosts := mesh(t, 2)
	client, server := hosts[0], hosts[1]
	var running atomic.Int32
	release := make(chan struct{})
	server.HandleRequest(1, func(context.Context, ID, []byte) ([]byte, error) {
		running.Add(1)
		<-release
		return nil, nil
	})
	server.HandleRequest(2, func(context.Context, ID, []byte) ([]byte, error) { return nil, nil })
	var wg sync.WaitGroup
	for range maxInFlight {
		wg.Go(func() {
			if _, err := client.Request(context.Background(), server.ID(), 1, nil); err != nil {
				t.Error(err)
			}
		})
	}
	await(t, "all requests run at once", func() bool { return running.Load() == maxInFlight })
	if _, err := client.Request(context.Background(), server.ID(), 2, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	// The server counts for itself.
	s := server.link(client.pid)
	if _, err := server.answer(context.Background(), s, 2, nil); !errors.Is(err, ErrBusy) || server.Refused(RefusedBusy) != 1 {
		t.Errorf("one more at the server: %v", err)
	}
	close(release)
	wg.Wait()
	if _, err := client.Request(context.Background(), server.ID(), 2, nil); err != nil {
		t.Errorf("after the rush: %v", err)
	}
}

func TestOversizeRequestIsRefused(t *testing.T) {
	h, s, _ := rogue(t)
	st := rawStream(t, s, h, submitProtocol)
	header := [messageHeaderSize]byte{1}
	binary.BigEndian.PutUint32(header[1:], MaxRequest+1)
	if _, err := st.Write(header[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Fatalf("the stream ends with %v, want a reset", err)
	}
	if n := h.Refused(RefusedFrameSize); n != 1 {
		t.Fatalf("%d refusals", n)
	}
}

func TestHandlerLearnsThatTheAskerLeft(t *testing.T) {
	hosts := mesh(t, 2)
	started, ended := make(chan struct{}), make(chan error, 1)
	hosts[1].HandleRequest(1, func(ctx context.Context, _ ID, _ []byte) ([]byte, error) {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan error, 1)
	go func() {
		_, err := hosts[0].Request(ctx, hosts[1].ID(), 1, nil)
		asked <- err
	}()
	receive(t, "the handler starts", started)
	cancel()
	if err := receive(t, "the asker returns", asked); !errors.Is(err, context.Canceled) {
		t.Errorf("the asker gets %v", err)
	}
	if err := receive(t, "the handler ends", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context ends with %v", err)
	}
}

func TestGossip(t *testing.T) {
	hosts := mesh(t, 3)
	type gossip struct {
		from ID
		body string
	}
	got := make(chan gossip, 8)
	for _, h := range hosts[1:] {
		h.HandleGossip(7, func(from ID, body []byte) { got <- gossip{from, string(body)} })
	}
	if err := hosts[0].Broadcast(7, []byte("to all")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if g := receive(t, "a broadcast", got); g != (gossip{hosts[0].ID(), "to all"}) {
			t.Fatalf("got %v", g)
		}
	}
	if err := hosts[2].SendTo(hosts[1].ID(), 7, []byte("to one")); err != nil {
		t.Fatal(err)
	}
	if g := receive(t, "gossip", got); g != (gossip{hosts[2].ID(), "to one"}) {
		t.Fatalf("got %v", g)
	}
	if err := hosts[0].Broadcast(0, nil); !errors.Is(err, ErrReservedKind) {
		t.Errorf("kind 0: %v", err)
	}
	if err := hosts[0].SendTo(hosts[1].ID(), 7, make([]byte, MaxGossip+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversize: %v", err)
	}
	if err := hosts[0].SendTo(idOf(testKey("nobody")), 7, nil); !errors.Is(err, ErrNotMember) {
		t.Errorf("to a stranger: %v", err)
	}
}

// A slow handler sees the newest body, not all of them, and is no dead peer.
func TestGossipIsLatestOnly(t *testing.T) {
	hosts := mesh(t, 2)
	const last = 200
	entered, release := make(chan struct{}, 1), make(chan struct{})
	var calls atomic.Int32
	newest := make(chan struct{})
	hosts[1].HandleGossip(1, func(_ ID, body []byte) {
		if calls.Add(1) == 1 {
			entered <- struct{}{}
			<-release
		}
		if binary.BigEndian.Uint32(body) == last {
			close(newest)
		}
	})
	body := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	if err := hosts[0].Broadcast(1, body(0)); err != nil {
		t.Fatal(err)
	}
	receive(t, "the handler is called", entered)
	for n := uint32(1); n <= last; n++ {
		if err := hosts[0].Broadcast(1, body(n)); err != nil {
			t.Fatal(err)
		}
	}
	blocked := hosts[1].LastHeard(hosts[0].ID())
	await(t, "heartbeats behind a slow handler", func() bool { return hosts[1].LastHeard(hosts[0].ID()).After(blocked) })
	close(release)
	receive(t, "the newest body", newest)
	if n := calls.Load(); n > last/2 {
		t.Fatalf("%d calls for %d bodies", n, last)
	}
}

func TestGossipFloodIsSlowedDown(t *testing.T) {
	tokens := newBucket(gossipRate, gossipBurst, time.Unix(0, 0))
	now := time.Unix(0, 0)
	taken := 0
	for range 1000 { // a flood over ten seconds
		now = now.Add(10 * time.Millisecond)
		if tokens.take(now) {
			taken++
		}
	}
	if want := gossipBurst + 10*gossipRate; taken > want+1 || taken < want-1 {
		t.Fatalf("%d frames pass in ten seconds, want about %d", taken, want)
	}
	for !tokens.ready(now) {
		now = now.Add(tokens.wait() + 1)
	}

	h, s, id := rogue(t)
	st := rawStream(t, s, h, approveProtocol)
	var frame [gossipHeaderSize]byte
	frame[0] = 1
	if _, err := st.Write(frame[:]); err != nil {
		t.Fatal(err)
	}
	await(t, "gossip is heard", func() bool { return h.Alive(id) })
	binary.BigEndian.PutUint16(frame[1:], MaxGossip+1)
	if _, err := st.Write(frame[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Fatalf("the stream ends with %v, want a reset", err)
	}
	if n := h.Refused(RefusedFrameSize); n != 1 {
		t.Fatalf("%d refusals", n)
	}
}
