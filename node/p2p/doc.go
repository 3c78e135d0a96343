// Package p2p owns the one libp2p host of a node: its identity, its listening
// TCP port, the connections to its peers and the streams over them. It promises
// that bytes come from the peer they are said to come from, that only peers of
// the allow-list are heard, that every size, count and rate has a limit with a
// named refusal, and that a lost connection is noticed at once. What the bytes
// mean, who ought to be a peer and which signatures count it leaves to others:
// peers are named by their Ed25519 public keys, messages are bytes.
//
// Four protocols share the port (spec: consensus §4, signing §9):
//
//	protocol           offers                   delivery
//	/coffer/raft/1     Raft                     net.Conn streams, 8 each way per peer
//	/coffer/tss/1      Send, Handle             ordered, each frame once, resent after a reconnect
//	/coffer/submit/1   Request, HandleRequest   one stream per request
//	/coffer/approve/1  Broadcast, HandleGossip  newest per kind and peer; heartbeat
//
// A peer has a Role. Each stream is checked by it again, for its protocol: a
// follower opens no raft stream and no session stream to us, a node that takes part
// in a resharing no raft stream. Which of their gossip and requests counts is for
// the handlers to judge.
//
// # Why not one session stream per (session, peer)
//
// The spec lets a signing session open a stream for each of its peers. Here one
// stream per direction carries all sessions of a peer, because order, resending
// and the queue limit are properties of the peer, and a session that starts then
// costs no round trip. Frames are acknowledged: what was written into a
// connection that died is sent again, and the receiver drops what it had.
//
// # Why not let libp2p dial
//
// One goroutine per peer dials and keeps the connection; every stream is opened
// with NoDial. Otherwise the dial back-off of the swarm (5 s and growing) would
// decide how long a restarted member stays unheard.
//
// # Why not QUIC, port reuse, relay, discovery
//
// QUIC costs 45–90 % more CPU at these message sizes. Port reuse would let a
// second process listen on the same port without an error. Addresses come from
// the ledger and the operator, so nothing needs discovering.
package p2p
