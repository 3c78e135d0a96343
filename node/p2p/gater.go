package p2p

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// gater lets in nobody but peers of the allow-list. A stranger can make us do
// one handshake, and not more often than its address allows.
type gater struct {
	allowed func(peer.ID) bool
	refuse  func(Refusal, ...any)

	mu        sync.Mutex
	addresses map[netip.Prefix]*bucket
}

func newGater(allowed func(peer.ID) bool, refuse func(Refusal, ...any)) *gater {
	return &gater{allowed: allowed, refuse: refuse, addresses: map[netip.Prefix]*bucket{}}
}

func (g *gater) InterceptPeerDial(p peer.ID) bool {
	return g.allowed(p)
}

func (g *gater) InterceptAddrDial(p peer.ID, _ ma.Multiaddr) bool {
	return g.allowed(p)
}

func (g *gater) InterceptAccept(c network.ConnMultiaddrs) bool {
	if !g.admit(c.RemoteMultiaddr(), time.Now()) {
		g.refuse(RefusedAddressRate, "address", c.RemoteMultiaddr())
		return false
	}
	return true
}

// InterceptSecured runs after the handshake proved the key.
func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	if !g.allowed(p) {
		g.refuse(RefusedNotMember, "peer", p, "address", c.RemoteMultiaddr())
		return false
	}
	return true
}

// InterceptUpgraded asks once more: the list may have changed in the handshake.
func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return g.allowed(c.RemotePeer()), 0
}

func (g *gater) admit(m ma.Multiaddr, now time.Time) bool {
	prefix, ok := prefixOf(m)
	if !ok {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.addresses[prefix]
	if b == nil {
		if len(g.addresses) >= maxAddressesSeen {
			g.forgetIdle(now)
		}
		if len(g.addresses) >= maxAddressesSeen {
			return false
		}
		fresh := newBucket(acceptRate, acceptBurst, now)
		b = &fresh
		g.addresses[prefix] = b
	}
	return b.take(now)
}

// forgetIdle drops the addresses that are as good as never seen.
func (g *gater) forgetIdle(now time.Time) {
	for p, b := range g.addresses {
		if b.refill(now); b.tokens >= b.burst {
			delete(g.addresses, p)
		}
	}
}

// prefixOf is the unit that one party controls: an IPv4 address, an IPv6 /64.
func prefixOf(m ma.Multiaddr) (netip.Prefix, bool) {
	na, err := manet.ToNetAddr(m)
	if err != nil {
		return netip.Prefix{}, false
	}
	tcp, ok := na.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ip = ip.Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	return prefix, err == nil
}

// refusals counts what was refused, by name.
type refusals struct {
	mu     sync.Mutex
	counts map[Refusal]uint64
	logged map[Refusal]time.Time
}

// add counts r and reports whether it is time to log it.
func (r *refusals) add(name Refusal, now time.Time) (total uint64, log bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[name]++
	if now.Sub(r.logged[name]) >= refusalLogEvery {
		r.logged[name] = now
		log = true
	}
	return r.counts[name], log
}

func (r *refusals) count(name Refusal) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[name]
}
