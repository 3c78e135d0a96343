package tss

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"time"
)

// Echo broadcast without a round of its own (spec: signing §9): an envelope of
// round r+1 carries the hash over the broadcasts its sender saw in round r.
// Where two differ, both send each other the hashes (echo) and, of what
// differs, the envelopes themselves (proof); two envelopes that one party
// signed for one slot convict it.

// agrees reports whether the sender of f saw the same broadcasts of the round
// before. If not, the message is held back and the dispute begins.
func (x *session) agrees(f *frame) bool {
	if f.rule.round == 1 {
		return true
	}
	mine := seenHash(x.hashes[f.rule.round-1])
	if bytes.Equal(mine[:], f.env.Seen) {
		return true
	}
	from := x.index[f.env.From]
	if x.disputes[from] {
		return false
	}
	x.disputes[from] = true
	if x.dispute == nil {
		x.dispute = time.After(disputeWait)
	}
	x.send(from, x.seal(ruleEcho, from, f.rule.round-1, nil, x.echo(f.rule.round-1)))
	return false
}

func (x *session) disputed() []int {
	var out []int
	for _, i := range x.others() {
		if x.disputes[i] {
			out = append(out, i)
		}
	}
	return out
}

// echo is the list of a round's broadcast hashes, in order of types and parties.
func (x *session) echo(round int) []byte {
	var b []byte
	for _, h := range x.hashes[round] {
		b = append(b, h[:]...)
	}
	return b
}

// settleDisputes answers echoes and judges proofs. Answers leave first: a peer
// that is in the right must get its proof even if ours ends this session.
func (x *session) settleDisputes() error {
	x.mu.Lock()
	echoes, proofs := x.echoes, x.proofs
	x.echoes, x.proofs = make([]*frame, len(x.parties)), nil
	x.mu.Unlock()
	for from, f := range echoes {
		if f == nil {
			continue
		}
		if err := x.answerEcho(from, f); err != nil {
			return err
		}
	}
	for _, f := range proofs {
		pending, err := x.judge(f)
		if err != nil {
			return err
		}
		if pending {
			x.mu.Lock()
			x.proofs = append(x.proofs, f)
			x.mu.Unlock()
		}
	}
	return nil
}

func (x *session) answerEcho(from int, f *frame) error {
	round := int(f.env.Round)
	theirs, mine := f.env.Payload, x.echo(round)
	kinds := x.protocol.broadcasts(round)
	if len(kinds) == 0 || len(theirs) != len(kinds)*len(x.parties)*sha256.Size {
		return x.proven(from, round, "E7", "echo of a wrong length", f.raw)
	}
	if len(mine) != len(theirs) || round > x.round {
		return nil // a round we have not seen all of: nothing to compare
	}
	for at := 0; at < len(mine); at += sha256.Size {
		if bytes.Equal(mine[at:at+sha256.Size], theirs[at:at+sha256.Size]) {
			continue
		}
		slot := at / sha256.Size
		k, kind := slot%len(x.parties), kinds[slot/len(x.parties)]
		shown := x.own[kind.code]
		if k != x.self {
			shown = x.broadcastOf(k, kind)
		}
		switch {
		case !kind.role.of(x.roles[k]):
			return x.proven(from, round, "E7", "echo of a message that does not exist", f.raw)
		case shown == nil:
			continue // not here yet: nothing to show
		case k == from:
			// Its own word against its own envelope.
			return x.equivocation(from, round, shown, f.raw)
		}
		x.send(from, x.seal(ruleProof, from, round, nil, shown))
	}
	return nil
}

// judge compares an envelope shown by a peer with the one we hold of the same
// slot; pending if we hold none yet. What is not signed by a party of this
// session for this session proves nothing.
func (x *session) judge(f *frame) (pending bool, err error) {
	shown, err := openFrame(x.r.Cluster, nil, f.env.Payload)
	if err != nil || shown.env.Session != x.r.Session || !shown.rule.broadcast || !x.protocol.has(shown.rule) {
		return false, nil
	}
	k, party := x.index[shown.env.From]
	if !party || k == x.self {
		return false, nil
	}
	x.mu.Lock()
	held := x.slots[k][shown.rule.code]
	x.mu.Unlock()
	if held == nil {
		return true, nil
	}
	if held.hash == shown.hash {
		return false, nil
	}
	return false, x.equivocation(k, shown.rule.round, held.raw, shown.raw)
}

// spread shows the other parties why this one leaves: whoever is convicted
// here got away with it there, and a party that asked us for proof would
// otherwise suspect us.
func (x *session) spread(err error) {
	var b *Blame
	if !errors.As(err, &b) || b.Reason != Equivocation {
		return
	}
	for _, evidence := range b.Evidence {
		for _, i := range x.others() {
			if x.parties[i] != b.Culprits[0] {
				x.send(i, x.seal(ruleProof, i, b.Round, nil, evidence))
			}
		}
	}
}

func (x *session) broadcastOf(party int, r *rule) []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.slots[party][r.code]; f != nil {
		return f.raw
	}
	return nil
}
