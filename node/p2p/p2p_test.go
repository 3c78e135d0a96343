package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; none is expected to come near it.
const patience = 30 * time.Second

func testKey(seed string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(h[:])
}

func idOf(key ed25519.PrivateKey) ID { return ID(key.Public().(ed25519.PublicKey)) }

// await polls a condition that no event announces.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// receive takes one value of a channel that must bring one.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

func newTestHost(t *testing.T, name string, silence time.Duration) *Host {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", name)
	h, err := newHost(Config{Key: testKey(name), Log: log, AliveAfter: patience}, silence)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// mesh returns n hosts that list each other and are connected.
func mesh(t *testing.T, n int) []*Host {
	t.Helper()
	var hosts []*Host
	for i := range n {
		hosts = append(hosts, newTestHost(t, fmt.Sprintf("%s %d", t.Name(), i), silenceReset))
	}
	introduce(t, hosts...)
	return hosts
}

func peersOf(hosts ...*Host) (peers []Peer) {
	for _, h := range hosts {
		peers = append(peers, Peer{ID: h.ID(), Addr: h.Addr(), Role: Member})
	}
	return peers
}

func introduce(t *testing.T, hosts ...*Host) {
	t.Helper()
	for _, h := range hosts {
		if err := h.SetPeers(peersOf(hosts...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range hosts {
		for _, b := range hosts {
			if a != b {
				await(t, "members connect", func() bool { return a.Connected(b.ID()) })
			}
		}
	}
}

// stranger is a bare libp2p host, to do what Host would not.
func stranger(t *testing.T, key ed25519.PrivateKey) host.Host {
	t.Helper()
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := libp2p.New(libp2p.Identity(priv), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(),
		libp2p.PrometheusRegisterer(prometheus.NewRegistry()), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func connect(s host.Host, h *Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := ma.NewMultiaddr(h.Addr())
	if err != nil {
		return err
	}
	return s.Connect(ctx, peer.AddrInfo{ID: h.pid, Addrs: []ma.Multiaddr{a}})
}

func rawStream(t *testing.T, s host.Host, h *Host, id protocol.ID) network.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := s.NewStream(ctx, h.pid, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestIdentityBothWays(t *testing.T) {
	id := idOf(testKey("somebody"))
	pid, err := PeerID(id)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := MemberID(pid); err != nil || back != id {
		t.Fatalf("MemberID(PeerID(id)) = %x, %v", back, err)
	}
	address, err := RaftAddress(id)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := FromRaftAddress(address); err != nil || back != id {
		t.Fatalf("FromRaftAddress(RaftAddress(id)) = %x, %v", back, err)
	}
	_, other, err := crypto.GenerateSecp256k1Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := peer.IDFromPublicKey(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MemberID(foreign); !errors.Is(err, errNotEd25519) {
		t.Fatalf("a secp256k1 peer id gives %v", err)
	}
	if _, err := FromRaftAddress("10.0.0.1:7001"); err == nil {
		t.Fatal("a host and port passes for a raft address")
	}
}

func TestMemberReachesMember(t *testing.T) {
	hosts := mesh(t, 3)
	for _, a := range hosts {
		for _, b := range hosts {
			await(t, "heartbeats arrive", func() bool { return a.Alive(b.ID()) })
			if a != b && a.LastHeard(b.ID()).IsZero() {
				t.Fatal("alive, but never heard")
			}
		}
	}
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.Contains(f.GetName(), "libp2p") {
			t.Fatalf("global metric %s", f.GetName())
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	h := newTestHost(t, "config", silenceReset)
	some := idOf(testKey("some"))
	for _, peers := range [][]Peer{
		{{ID: some, Addr: "127.0.0.1:7001"}},
		{{ID: some, Addr: "/ip4/127.0.0.1/udp/7001/quic-v1"}},
		{{ID: some, Addr: "/ip4/127.0.0.1"}},
		{{ID: some}, {ID: some}},
	} {
		if err := h.SetPeers(peers); err == nil {
			t.Errorf("%v is accepted", peers)
		}
	}
	var many []Peer
	for i := range MaxPeers + 1 {
		many = append(many, Peer{ID: idOf(testKey(fmt.Sprint(i))), Role: Member})
	}
	if err := h.SetPeers(many); !errors.Is(err, ErrTooManyPeers) {
		t.Errorf("%d peers give %v", len(many), err)
	}
	if _, err := New(Config{Key: testKey("second"), Listen: h.Addr()}); err == nil || !strings.Contains(err.Error(), h.Addr()) {
		t.Errorf("a port in use gives %v", err)
	}
	if _, err := New(Config{Key: testKey("short")[:32]}); err == nil {
		t.Error("half a key is accepted")
	}
	for name, err := range map[string]error{
		"self":     h.Send(context.Background(), h.ID(), nil),
		"unlisted": h.Send(context.Background(), some, nil),
	} {
		if !errors.Is(err, ErrNotMember) {
			t.Errorf("sending to %s gives %v", name, err)
		}
	}
}

func TestNonMemberIsRefused(t *testing.T) {
	hosts := mesh(t, 2)
	got := make(chan ID, 1)
	hosts[0].Handle(func(from ID, _ []byte) { got <- from })

	s := stranger(t, testKey("stranger"))
	// The handshake may be over for the stranger before he is shown the door.
	if err := connect(s, hosts[0]); err == nil {
		await(t, "the stranger is disconnected", func() bool { return s.Network().Connectedness(hosts[0].pid) != network.Connected })
	}
	await(t, "the refusal is counted", func() bool { return hosts[0].Refused(RefusedNotMember) > 0 })
	if hosts[0].swarm.Connectedness(s.ID()) == network.Connected {
		t.Fatal("connected to a stranger")
	}
	// Nor do we call him.
	if err := hosts[0].host.Connect(context.Background(), peer.AddrInfo{ID: s.ID(), Addrs: s.Addrs()}); err == nil {
		t.Fatal("dialled a stranger")
	}
	// A stranger costs the members nothing.
	if err := hosts[1].Send(context.Background(), hosts[0].ID(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if from := receive(t, "a frame", got); from != hosts[1].ID() {
		t.Fatal("frame from another")
	}
}

func TestRemovedMemberIsDisconnected(t *testing.T) {
	hosts := mesh(t, 2)
	gone := make(chan ID, 1)
	hosts[0].OnDisconnect(func(id ID) { gone <- id })
	if err := hosts[0].SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	if id := receive(t, "disconnect callback", gone); id != hosts[1].ID() {
		t.Fatal("another one left")
	}
	// The removed one goes on dialling and is refused.
	await(t, "a refusal", func() bool { return hosts[0].Refused(RefusedNotMember) > 0 })
	if hosts[0].Connected(hosts[1].ID()) || hosts[0].Alive(hosts[1].ID()) {
		t.Fatal("a removed member counts as connected")
	}
	if err := hosts[0].SetPeers(peersOf(hosts...)); err != nil {
		t.Fatal(err)
	}
	await(t, "it is back", func() bool { return hosts[0].Alive(hosts[1].ID()) && hosts[1].Connected(hosts[0].ID()) })
}

// A node without a seat has part in what its role says, and rises without losing
// its connection.
func TestRoles(t *testing.T) {
	member, newcomer := newTestHost(t, "member", silenceReset), newTestHost(t, "newcomer", silenceReset)
	if err := newcomer.SetPeers(peersOf(member)); err != nil {
		t.Fatal(err)
	}
	as := func(r Role) {
		t.Helper()
		if err := member.SetPeers([]Peer{{ID: newcomer.ID(), Addr: newcomer.Addr(), Role: r}}); err != nil {
			t.Fatal(err)
		}
	}
	as(Follower)
	await(t, "connection", func() bool { return member.Connected(newcomer.ID()) && newcomer.Connected(member.ID()) })
	await(t, "heartbeats", func() bool { return member.Alive(newcomer.ID()) && newcomer.Alive(member.ID()) })
	if err := member.Send(context.Background(), newcomer.ID(), nil); !errors.Is(err, ErrNotMember) {
		t.Fatalf("session frame to a follower: %v", err)
	}
	refuses := func(id protocol.ID) bool {
		t.Helper()
		before := member.Refused(RefusedNotMember)
		s, err := newcomer.host.NewStream(t.Context(), member.pid, id)
		if err == nil {
			_, _ = s.Write([]byte("x"))
			_ = s.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = s.Read(make([]byte, 1))
			_ = s.Reset()
		}
		return member.Refused(RefusedNotMember) > before
	}
	if !refuses(raftProtocol) || !refuses(tssProtocol) {
		t.Fatal("a follower opens raft or session streams")
	}
	member.HandleRequest(1, func(context.Context, ID, []byte) ([]byte, error) { return []byte("yes"), nil })
	if b, err := newcomer.Request(t.Context(), member.ID(), 1, nil); err != nil || string(b) != "yes" {
		t.Fatalf("a follower's request: %q, %v", b, err)
	}

	since, _ := member.link(newcomer.pid).upFor()
	as(Resharing)
	if refuses(tssProtocol) || !refuses(raftProtocol) {
		t.Fatal("a node that takes part in a resharing: no session streams, or raft streams")
	}
	as(Member)
	if refuses(raftProtocol) {
		t.Fatal("a member opens no raft stream")
	}
	if now, up := member.link(newcomer.pid).upFor(); !up || !now.Equal(since) {
		t.Fatal("it rose and lost its connection")
	}
	address, err := RaftAddress(newcomer.ID())
	if err != nil {
		t.Fatal(err)
	}
	as(Follower)
	await(t, "connection", func() bool { return member.Connected(newcomer.ID()) && newcomer.Connected(member.ID()) })
	if !refuses(raftProtocol) {
		t.Fatal("it fell and opens raft streams")
	}
	c, err := member.Raft().Dial(address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	in, err := newcomer.Raft().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if in.RemoteAddr().String() != member.pid.String() {
		t.Fatalf("raft stream from %s", in.RemoteAddr())
	}
}

func TestAddressRate(t *testing.T) {
	var refused int
	g := newGater(func(peer.ID) bool { return true }, func(r Refusal, _ ...any) {
		if r == RefusedAddressRate {
			refused++
		}
	})
	now := time.Unix(1000, 0)
	a, b := ma.StringCast("/ip4/10.0.0.1/tcp/1"), ma.StringCast("/ip4/10.0.0.2/tcp/1")
	for range acceptBurst {
		if !g.admit(a, now) {
			t.Fatal("refused within the burst")
		}
	}
	if g.admit(a, now) {
		t.Fatal("admitted beyond the burst")
	}
	if !g.InterceptAccept(remoteAt{addr: b}) {
		t.Fatal("one address is refused for another's rate")
	}
	if !g.admit(a, now.Add(time.Second)) {
		t.Fatal("still refused a second later")
	}
	one, two := ma.StringCast("/ip6/2001:db8::1/tcp/1"), ma.StringCast("/ip6/2001:db8::2/tcp/1")
	for range acceptBurst {
		g.admit(one, now)
	}
	if g.admit(two, now) {
		t.Fatal("a /64 has one bucket per address")
	}
	for i := range 2 * maxAddressesSeen {
		g.admit(ma.StringCast(fmt.Sprintf("/ip4/10.1.%d.%d/tcp/1", i/256, i%256)), now)
	}
	if len(g.addresses) > maxAddressesSeen {
		t.Fatalf("%d addresses are remembered", len(g.addresses))
	}
	if !g.admit(ma.StringCast("/ip4/10.2.0.1/tcp/1"), now.Add(time.Hour)) {
		t.Fatal("idle addresses are never forgotten")
	}
	for range acceptBurst + 1 {
		g.InterceptAccept(remoteAt{addr: b})
	}
	if refused == 0 {
		t.Fatal("the refusal has no name")
	}
}

type remoteAt struct{ addr ma.Multiaddr }

func (r remoteAt) LocalMultiaddr() ma.Multiaddr  { return r.addr }
func (r remoteAt) RemoteMultiaddr() ma.Multiaddr { return r.addr }

func TestDisconnectIsNoticed(t *testing.T) {
	hosts := mesh(t, 2)
	gone := make(chan ID, 1)
	hosts[0].OnDisconnect(func(id ID) { gone <- id })
	await(t, "a heartbeat", func() bool { return hosts[0].Alive(hosts[1].ID()) })
	if err := hosts[1].Close(); err != nil {
		t.Fatal(err)
	}
	if id := receive(t, "disconnect callback", gone); id != hosts[1].ID() {
		t.Fatal("another one left")
	}
	// AliveAfter is long here: it is the connection that counts.
	if hosts[0].Connected(hosts[1].ID()) || hosts[0].Alive(hosts[1].ID()) {
		t.Fatal("a closed peer counts as alive")
	}
	if err := hosts[1].Broadcast(1, nil); err != nil {
		t.Fatalf("broadcast of a closed host: %v", err)
	}
	if err := hosts[1].Send(context.Background(), hosts[0].ID(), nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("send of a closed host: %v", err)
	}
}

// A peer that holds its connection and says nothing is a dead machine or a
// partition; the connection is given up so that a new one can be tried.
func TestSilentPeerIsDropped(t *testing.T) {
	h := newTestHost(t, "loud", 200*time.Millisecond)
	mute := testKey("mute")
	gone := make(chan ID, 1)
	h.OnDisconnect(func(id ID) { gone <- id })
	if err := h.SetPeers([]Peer{{ID: idOf(mute), Role: Member}}); err != nil {
		t.Fatal(err)
	}
	s := stranger(t, mute)
	if err := connect(s, h); err != nil {
		t.Fatal(err)
	}
	if id := receive(t, "disconnect callback", gone); id != idOf(mute) {
		t.Fatal("another one left")
	}
}

func TestRestartedPeerIsReconnected(t *testing.T) {
	hosts := mesh(t, 2)
	frames := make(chan string, 16)
	receiverKey, receiverAddr := testKey(t.Name()+" 1"), hosts[1].Addr()
	gone := make(chan ID, 1)
	hosts[0].OnDisconnect(func(id ID) { gone <- id })
	if err := hosts[1].Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, "disconnect callback", gone)
	// Queued while the peer is away, delivered when it is back.
	for _, f := range []string{"one", "two"} {
		if err := hosts[0].Send(context.Background(), hosts[1].ID(), []byte(f)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(Config{Key: receiverKey, Listen: receiverAddr, Peers: peersOf(hosts[0])})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Handle(func(_ ID, f []byte) { frames <- string(f) })
	for _, want := range []string{"one", "two"} {
		if got := receive(t, "a queued frame", frames); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestCloseWhileBusy(t *testing.T) {
	hosts := mesh(t, 3)
	for _, h := range hosts {
		h.Handle(func(ID, []byte) {})
		h.HandleGossip(1, func(ID, []byte) {})
		h.HandleRequest(1, func(ctx context.Context, _ ID, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}
	var wg sync.WaitGroup
	for _, h := range hosts[1:] {
		wg.Go(func() {
			if _, err := h.Request(context.Background(), hosts[0].ID(), 1, nil); err == nil {
				t.Error("a request to a closing host succeeds")
			}
		})
		for range 100 {
			_ = h.Send(context.Background(), hosts[0].ID(), make([]byte, 4096))
			_ = h.Broadcast(1, nil)
		}
	}
	if err := hosts[0].Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}
