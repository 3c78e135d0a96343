// Package tss runs signing sessions: one session is one keygen, signature or
// resharing, carried out by exactly the named parties, joined at most once in the life of
// a node, ending in one verified result or in a list of culprits (spec:
// signing §2).
//
// It owns the session's name, the join exchange, the signed envelopes, the child
// process in which the library computes, the guard in front of it, derivation of
// child keys and the check of the result. It promises that a malformed message
// of a peer names that peer and never stops the node, that no session is joined
// twice, restarts included, and that what it returns verifies under the derived
// key. It leaves to its caller which sessions to run: whether a signature is
// owed, the digest, the committee and the turn are decisions of the ledger and
// of the node.
//
//	ks, err := keystore.Open(dir, passphrase, keystore.Options{Node: self})
//	s, err := tss.New(tss.Config{Identity: key, Cluster: id, Keystore: ks, Transport: t, OnJoin: f})
//	transport.Handle(s.Receive)            // frames of authenticated members
//	transport.OnDisconnect(s.Disconnected) // fails their sessions at once
//
//	r := tss.Request{Cluster: id, Kind: tss.Sign, Key: key, …}
//	r.Session = tss.SessionName(r)
//	sig, err := s.Sign(ctx, r)
//
// The error says what to do next: ErrJoined, take the next turn; ErrBusy, come
// again; ErrNoKeyShare, report key-missing; *Blame, suspect its culprits and
// take the next turn without them (Proven: attest them with the evidence); the
// context's error, nothing happened that matters.
//
// A session of a turn this node did not take is announced by OnJoin, so that
// the caller can move up to it. It must not block; the Join itself is kept for
// a few seconds and counts when Sign is called.
//
// DESIGN.md beside this file says where things sit and what was decided
// against.
package tss
