package tss

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
)

const envelopeDomain = "coffer/envelope/1"

// envelope carries one message (spec: signing §9). On the wire a frame is
//
//	code ‖ CBOR(envelope) ‖ Ed25519 signature
//
// and the signature is over domain ‖ cluster ‖ code ‖ CBOR. The code stands in
// front so that size limits apply before anything is decoded; the cluster is
// signed and never sent, for a member knows only one.
type envelope struct {
	Session SessionID `cbor:"1,keyasint"`
	Epoch   uint64    `cbor:"2,keyasint"`
	Batch   uint64    `cbor:"3,keyasint"`
	Attempt uint64    `cbor:"4,keyasint"`
	Input   uint16    `cbor:"5,keyasint"`
	Turn    uint16    `cbor:"6,keyasint"`
	Round   uint8     `cbor:"7,keyasint"`
	Role    uint8     `cbor:"8,keyasint"` // 0, but in a resharing: see role
	Type    string    `cbor:"9,keyasint"`
	From    PartyID   `cbor:"10,keyasint"`
	To      []byte    `cbor:"11,keyasint"` // empty: broadcast
	Seen    []byte    `cbor:"12,keyasint"` // empty in round 1
	Payload []byte    `cbor:"13,keyasint"`
}

// frame is a received envelope that passed all checks a node can make without
// a session.
type frame struct {
	env  envelope
	rule *rule
	raw  []byte
	hash [32]byte
}

func signedBytes(cluster [32]byte, codeAndBody []byte) []byte {
	b := make([]byte, 0, len(envelopeDomain)+len(cluster)+len(codeAndBody))
	b = append(b, envelopeDomain...)
	b = append(b, cluster[:]...)
	return append(b, codeAndBody...)
}

func sealFrame(key ed25519.PrivateKey, cluster [32]byte, r *rule, env envelope) []byte {
	env.Type = r.name
	b := append([]byte{r.code}, encode(env)...)
	return append(b, ed25519.Sign(key, signedBytes(cluster, b))...)
}

// openFrame checks a frame by itself: E1 size, canonical encoding, E2 signature
// of the peer it came from, and the parts of E4 and E5 that need no session.
// from is whom the transport heard, or nil inside evidence, where anyone may
// have signed.
func openFrame(cluster [32]byte, from *PartyID, raw []byte) (*frame, error) {
	if len(raw) < 1+ed25519.SignatureSize {
		return nil, refused("E1", "frame of %d bytes", len(raw))
	}
	r := rulesByCode[raw[0]]
	if r == nil {
		return nil, refused("E5", "unknown message code %d", raw[0])
	}
	if len(raw) > r.limit+maxHeader {
		return nil, refused("E1", "%s of %d bytes, limit %d", r.name, len(raw), r.limit+maxHeader)
	}
	codeAndBody, sig := raw[:len(raw)-ed25519.SignatureSize], raw[len(raw)-ed25519.SignatureSize:]
	f := &frame{rule: r, raw: raw, hash: sha256.Sum256(raw)}
	if err := decode(codeAndBody[1:], &f.env); err != nil {
		return nil, refused("E2", "envelope does not decode")
	}
	if from != nil && f.env.From != *from {
		return nil, refused("E2", "envelope of %s came from %s", f.env.From, *from)
	}
	if !ed25519.Verify(f.env.From[:], signedBytes(cluster, codeAndBody), sig) {
		return nil, refused("E2", "bad signature of %s", f.env.From)
	}
	switch {
	case f.env.Type != r.name:
		return nil, refused("E5", "%s in a frame of %s", f.env.Type, r.name)
	case len(f.env.Payload) > r.limit:
		return nil, refused("E1", "payload of %d bytes, limit %d", len(f.env.Payload), r.limit)
	case f.env.Role != uint8(r.role):
		return nil, refused("E4", "%s in role %d", r.name, f.env.Role)
	case len(f.env.To) != 0 && len(f.env.To) != len(PartyID{}), r.broadcast != (len(f.env.To) == 0):
		return nil, refused("E4", "%s to %d bytes of recipient", r.name, len(f.env.To))
	case len(f.env.Seen) != 0 && len(f.env.Seen) != sha256.Size:
		return nil, refused("E7", "echo of %d bytes", len(f.env.Seen))
	case r.code >= firstCode && int(f.env.Round) != r.round:
		return nil, refused("E5", "%s in round %d", r.name, f.env.Round)
	case r.code >= firstCode && (len(f.env.Seen) == 0) != (r.round == 1):
		return nil, refused("E7", "echo in round %d", r.round)
	}
	return f, nil
}

// seenHash is what an envelope of the next round echoes: the hash over the
// sorted hashes of a round's broadcasts.
func seenHash(hashes [][32]byte) [32]byte {
	hs := slices.Clone(hashes)
	slices.SortFunc(hs, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, x := range hs {
		h.Write(x[:])
	}
	return [32]byte(h.Sum(nil))
}
