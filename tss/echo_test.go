package tss_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	eddsasigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// otherCommitment is a well-formed first message of Ed25519 signing that the
// library would take.
var otherCommitment = spoil(func(m *eddsasigning.SignRound1Message) {
	m.Commitment = bytes.Repeat([]byte{7}, 32)
})

func forge(from int, frame []byte, change func(*tss.Forged)) []byte {
	return tss.Forge(tsstest.Identity(from), cluster, frame, change)
}

// A party that tells two others different things in one broadcast is convicted
// by both, though each of them got one well-formed message: their echoes
// differ, they show each other what they got, and it signed both.
func TestEquivocationIsProven(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 3, patient)
	liar := ids[2]
	net.Filter = func(from, to tss.PartyID, frame []byte) []byte {
		if from == liar && to == ids[0] && tss.NameOf(frame) == "D1" {
			return forge(2, frame, func(e *tss.Forged) { e.Payload = otherCommitment(e.Payload) })
		}
		return frame
	}
	_, errs := signAll(nodes, signRequest(eddsaKey, []byte("m"), ids...))
	for i := range 2 {
		var b *tss.Blame
		if !errors.As(errs[i], &b) || !b.Proven || b.Reason != tss.Equivocation || len(b.Culprits) != 1 || b.Culprits[0] != liar {
			t.Errorf("party %d: %v", i, errs[i])
			continue
		}
		if len(b.Evidence) != 2 || bytes.Equal(b.Evidence[0], b.Evidence[1]) {
			t.Fatalf("party %d: %d pieces of evidence", i, len(b.Evidence))
		}
		for _, e := range b.Evidence {
			if by, err := tss.EvidenceOf(cluster, e); err != nil || by != liar {
				t.Errorf("party %d: evidence of %v, %v", i, by, err)
			}
		}
	}
}

// A party that only claims to have seen something else convicts nobody, and is
// itself suspected.
func TestFalseEchoIsSuspected(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 3, patient)
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == ids[2] && tss.NameOf(frame) == "D2" {
			return forge(2, frame, func(e *tss.Forged) { e.Seen = make([]byte, 32) })
		}
		if from == ids[2] && (tss.NameOf(frame) == "echo" || tss.NameOf(frame) == "proof") {
			return nil
		}
		return frame
	}
	r := signRequest(eddsaKey, []byte("m"), ids...)
	r.Deadline = 5e9 // the liar waits it out
	_, errs := signAll(nodes, r)
	wantBlame(t, errs[0], tss.Divergence, ids[2])
	wantBlame(t, errs[1], tss.Divergence, ids[2])
}

func TestTwoMessagesInOneSlot(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, patient)
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == ids[1] && tss.NameOf(frame) == "D1" {
			second := forge(1, frame, func(e *tss.Forged) { e.Payload = otherCommitment(e.Payload) })
			if err := nodes[0].Signer.Receive(ids[1], second); err != nil {
				t.Error(err)
			}
		}
		return frame
	}
	_, err := runOne(t, nodes, signRequest(eddsaKey, []byte("m"), ids...))
	wantBlame(t, err, tss.Equivocation, ids[1])
	var b *tss.Blame
	if !errors.As(err, &b) || len(b.Evidence) != 2 || tss.NameOf(b.Evidence[0]) != "D1" || tss.NameOf(b.Evidence[1]) != "D1" {
		t.Errorf("the evidence is not both messages: %v", err)
	}
}

// Whatever a network repeats, and whatever an outsider or an old session adds,
// the session ends in its signature.
func TestRepeatsAndStrangersChangeNothing(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, patient)
	var refusals atomic.Int32
	net.Filter = func(from, to tss.PartyID, frame []byte) []byte {
		if to != ids[0] {
			return frame
		}
		s := nodes[0].Signer
		if err := s.Receive(from, frame); err != nil { // delivered twice
			t.Error(err)
		}
		for what, forged := range map[string][]byte{
			"by an outsider":         forge(7, frame, func(*tss.Forged) {}),
			"signature broken":       append(bytes.Clone(frame[:len(frame)-1]), frame[len(frame)-1]^1),
			"too long":               append(frame, make([]byte, 70<<10)...),
			"of another kind":        append([]byte{17}, frame[1:]...),
			"of a later round":       forge(1, frame, func(e *tss.Forged) { e.Name, e.Round, e.Seen = "D3", 9, make([]byte, 32) }),
			"without its echo":       forge(1, frame, func(e *tss.Forged) { e.Name, e.Round, e.Seen = "D2", 2, nil }),
			"of an unknown code":     append([]byte{250}, frame[1:]...),
			"empty":                  {},
			"signed, and cut":        frame[:len(frame)/2],
			"trailing bytes in CBOR": append(bytes.Clone(frame[:len(frame)-64]), append([]byte{0}, frame[len(frame)-64:]...)...),
		} {
			if s.Receive(from, forged) == nil {
				t.Errorf("%s: taken", what)
			}
			refusals.Add(1)
		}
		// For no session of this node: dropped, counted, no reply.
		if err := s.Receive(from, forge(1, frame, func(e *tss.Forged) { e.Session[0]++ })); err != nil {
			t.Error(err)
		}
		return frame
	}
	r := signRequest(eddsaKey, []byte("m"), ids...)
	if _, errs := signAll(nodes, r); errors.Join(errs...) != nil {
		t.Fatal(errors.Join(errs...))
	}
	if got := nodes[0].Signer.Stats().Refused; got < uint64(refusals.Load()) || got == 0 {
		t.Errorf("%d frames counted as refused of %d", got, refusals.Load())
	}
	if nodes[0].Signer.Stats().Unknown == 0 {
		t.Error("frames for unknown sessions are not counted")
	}
}

// An envelope that a party signs for this session with other numbers than the
// session is named after is proof against it.
func TestNumbersMustFitTheName(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, patient)
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == ids[1] && tss.NameOf(frame) == "D1" {
			return forge(1, frame, func(e *tss.Forged) { e.Epoch++ })
		}
		return frame
	}
	_, err := runOne(t, nodes, signRequest(eddsaKey, []byte("m"), ids...))
	var b *tss.Blame
	if !errors.As(err, &b) || !b.Proven || b.Check != "E3" || b.Culprits[0] != ids[1] {
		t.Errorf("got %v", err)
	}
}

func TestForeignProtocolInASession(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, patient)
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == ids[1] && tss.NameOf(frame) == "D1" {
			return forge(1, frame, func(e *tss.Forged) { e.Name = "S1" })
		}
		return frame
	}
	_, err := runOne(t, nodes, signRequest(eddsaKey, []byte("m"), ids...))
	var b *tss.Blame
	if !errors.As(err, &b) || !b.Proven || b.Check != "E5" || b.Culprits[0] != ids[1] {
		t.Errorf("got %v", err)
	}
}

func TestMutePartyIsSuspected(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, func(_ int, c *tss.Config) { c.SilenceMin = 100e6 })
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == ids[1] && tss.NameOf(frame) == "D2" {
			return nil
		}
		return frame
	}
	_, err := runOne(t, nodes, signRequest(eddsaKey, []byte("m"), ids...))
	wantBlame(t, err, tss.Silent, ids[1])
}

func TestSessionDeadlineNamesWhomItWaitedFor(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, patient)
	net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		if from == ids[1] && tss.NameOf(frame) == "D1" {
			return nil
		}
		return frame
	}
	r := signRequest(eddsaKey, []byte("m"), ids...)
	r.Deadline = 300e6
	_, err := runOne(t, nodes, r)
	wantBlame(t, err, tss.Deadline, ids[1])
}

func TestFloodEndsTheSession(t *testing.T) {
	net, nodes, ids := eddsaCluster(t, 2, patient)
	net.Filter = func(from, to tss.PartyID, frame []byte) []byte {
		if from == ids[1] && tss.NameOf(frame) == "D1" {
			for range (1<<20)/len(frame) + 1 {
				_ = nodes[0].Signer.Receive(from, frame)
			}
		}
		return frame
	}
	_, err := runOne(t, nodes, signRequest(eddsaKey, []byte("m"), ids...))
	wantBlame(t, err, tss.Flood, ids[1])
}
