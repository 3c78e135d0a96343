package tss

import (
	"bytes"
	"fmt"
	"math/big"

	lib "github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/commitments"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The guard stands between the wire and the library: v2.0.2 dereferences nil
// or indexes out of range inside its own goroutines on some messages, where
// nothing can be recovered (spec: signing §8). Every message passes it first;
// a check that fails is blame on the signer of the envelope, and the message
// never reaches the library.
//
// This file holds what all protocols share; the list of one protocol is in the
// file named after it.

// rule describes one message type of a protocol.
type rule struct {
	name      string // in the envelope
	code      byte   // first byte of the frame
	url       string // type inside the library's own wrapper
	round     int
	broadcast bool
	slot      int    // among the broadcasts of its round
	role      role   // of the sender, and
	to        role   // of the receivers; 0 outside of resharing
	opens     string // name of the type whose commitment it opens
	ack       bool   // has no content
	limit     int    // bytes of payload
	check     func(g *guard, from int, m proto.Message) error
}

const (
	// limitSmall is the default limit of a payload; KG R1 alone carries two DLN
	// proofs of 256 residues and needs more (spec: signing §9).
	limitSmall = 64 << 10
	limitLarge = 512 << 10
	// limitSign of a signing message: three times the largest honest one, and two
	// fit into one request to a member that is to judge them.
	limitSign = 24 << 10
)

// check adapts a function over one message type to a rule's.
func check[T proto.Message](f func(g *guard, from int, m T) error) func(*guard, int, proto.Message) error {
	return func(g *guard, from int, m proto.Message) error {
		t, ok := m.(T)
		if !ok {
			return violate("E5", "content is %T", m)
		}
		return f(g, from, t)
	}
}

// violation is a failed check: proof that the sender deviates, or, if it is
// local, something only the parties of the session can see.
type violation struct {
	check, detail string
	local         bool
}

func (v *violation) Error() string { return v.check + ": " + v.detail }

func violate(check, format string, args ...any) error {
	return &violation{check: check, detail: fmt.Sprintf(format, args...)}
}

// guard remembers what later checks of one session compare with.
type guard struct {
	curve Curve
	order *big.Int
	field *big.Int // prime of the coordinates
	m     int      // SigningThreshold
	self  int

	paillier []*big.Int // N of each party; keygen learns the others' from KG R1
	nTilde   []*big.Int
	commits  map[string][]*big.Int // by rule name, per party
	opened   []string              // whole decommitted polynomial per party

	parts *eddsaParts // Ed25519 signing

	// least that a value in a group of the receiver's choice may be: 2, and 1
	// where a judge looks.
	least *big.Int

	// stored are the moduli of all KeyShares in the keystore: none serves twice.
	stored map[string]bool

	pub      *crypto.ECPoint   // resharing: the key by the ledger
	ssid     []byte            // of the first dealer heard
	ownSSID  bool              // that was this member
	dealers  int               // how many
	dealt    []*crypto.ECPoint // what each dealer's polynomial must begin with, nil where unknown
	constant []*crypto.ECPoint // what it began with
}

func newGuard(c Curve, parties, self, m int) *guard {
	return &guard{
		curve: c, order: curveOrder(c), field: ellipticCurve(c).Params().P, m: m, self: self,
		paillier: make([]*big.Int, parties), nTilde: make([]*big.Int, parties),
		commits: map[string][]*big.Int{}, least: two, opened: make([]string, parties),
		dealt: make([]*crypto.ECPoint, parties), constant: make([]*crypto.ECPoint, parties),
	}
}

// parse unwraps a payload. A1: it re-encodes to the same bytes and has no
// unknown fields. E5: it holds the type that the envelope announced.
func parse(r *rule, payload []byte, from *lib.PartyID) (lib.ParsedMessage, error) {
	var wrapper anypb.Any
	if err := proto.Unmarshal(payload, &wrapper); err != nil {
		return nil, violate("A1", "not a protobuf message")
	}
	if wrapper.TypeUrl != r.url {
		return nil, violate("E5", "wraps %.80q", wrapper.TypeUrl)
	}
	msg, err := lib.ParseWireMessage(payload, from, r.broadcast)
	if err != nil {
		return nil, violate("A1", "content does not parse")
	}
	content := msg.Content()
	if r.ack && len(wrapper.Value) > 0 {
		return nil, violate("K11", "acknowledgement with %d bytes of content", len(wrapper.Value))
	}
	if len(wrapper.ProtoReflect().GetUnknown()) > 0 || len(content.ProtoReflect().GetUnknown()) > 0 {
		return nil, violate("A1", "unknown fields")
	}
	det := proto.MarshalOptions{Deterministic: true}
	inner, err := det.Marshal(content)
	if err != nil || !bytes.Equal(inner, wrapper.Value) {
		return nil, violate("A1", "content is not the canonical encoding")
	}
	outer, err := det.Marshal(&wrapper)
	if err != nil || !bytes.Equal(outer, payload) {
		return nil, violate("A1", "wrapper is not the canonical encoding")
	}
	if !msg.ValidateBasic() {
		return nil, violate("A2", "empty part or wrong number of parts")
	}
	return msg, nil
}

// number decodes a canonical integer in [lo, hi] (A2).
func number(check, name string, b []byte, lo, hi *big.Int) (*big.Int, error) {
	if len(b) == 0 || b[0] == 0 {
		return nil, violate(check, "%s: empty or leading zero", name)
	}
	if len(b) > (hi.BitLen()+7)/8 {
		return nil, violate(check, "%s: %d bytes", name, len(b))
	}
	x := new(big.Int).SetBytes(b)
	if x.Cmp(lo) < 0 || x.Cmp(hi) > 0 {
		return nil, violate(check, "%s out of range", name)
	}
	return x, nil
}

// below is the largest integer less than n.
func below(n *big.Int) *big.Int { return new(big.Int).Sub(n, one) }

// scalar decodes an integer in [1, order-1] (A4).
func (g *guard) scalar(check, name string, b []byte) (*big.Int, error) {
	return number(check, name, b, one, below(g.order))
}

// point checks a pair of coordinates (A3).
func (g *guard) point(check, name string, xb, yb []byte) error {
	x, err := number(check, name+".x", xb, one, below(g.field))
	if err != nil {
		return err
	}
	y, err := number(check, name+".y", yb, one, below(g.field))
	if err != nil {
		return err
	}
	if !onCurve(g.curve, x, y) {
		return violate(check, "%s is not a point of the group", name)
	}
	return nil
}

// schnorr checks the parts of a proof of knowledge: a point and one or more
// scalars. A zero scalar would make the library multiply to the identity and
// panic.
func (g *guard) schnorr(check string, alphaX, alphaY []byte, scalars ...[]byte) error {
	if err := g.point(check, "proof alpha", alphaX, alphaY); err != nil {
		return err
	}
	for _, s := range scalars {
		if _, err := g.scalar(check, "proof scalar", s); err != nil {
			return err
		}
	}
	return nil
}

// commitment remembers a hash commitment. Why not exactly 32 bytes, as the spec
// says: the library sends it as an integer, whose leading zeros are dropped, so
// one honest commitment in 256 is shorter.
func (g *guard) commitment(check, rule string, from int, b []byte) error {
	c, err := number(check, "commitment", b, one, maxHash)
	if err != nil {
		return err
	}
	if g.commits[rule] == nil {
		g.commits[rule] = make([]*big.Int, len(g.paillier))
	}
	g.commits[rule][from] = c
	return nil
}

var maxHash = below(new(big.Int).Lsh(big.NewInt(1), 256))

// opens checks that parts, a random value and then coordinates of points, are
// exactly 1+2·points, open the commitment the sender made under rule, and are
// points of the group.
func (g *guard) opens(check, rule string, from, points int, parts [][]byte) error {
	if len(parts) != 1+2*points {
		return violate(check, "decommitment of %d parts, want %d", len(parts), 1+2*points)
	}
	if _, err := number(check, "decommitment randomness", parts[0], one, maxHash); err != nil {
		return err
	}
	for i := 1; i < len(parts); i += 2 {
		if err := g.point(check, fmt.Sprintf("decommitted point %d", i/2), parts[i], parts[i+1]); err != nil {
			return err
		}
	}
	var c *big.Int
	if made := g.commits[rule]; made != nil {
		c = made[from]
	}
	d := commitments.HashCommitDecommit{C: c, D: commitments.NewHashDeCommitmentFromBytes(parts)}
	if !d.Verify() {
		return violate(check, "does not open the commitment")
	}
	return nil
}

// units checks that each x is invertible mod n, with one gcd for all.
func units(check, name string, n *big.Int, xs ...*big.Int) error {
	product := big.NewInt(1)
	for _, x := range xs {
		product.Mul(product, x)
		product.Mod(product, n)
	}
	if product.Sign() == 0 || new(big.Int).GCD(nil, nil, product, n).Cmp(one) != 0 {
		return violate(check, "%s not invertible", name)
	}
	return nil
}

// numbers decodes parts that all lie in [lo, hi].
func numbers(check, name string, parts [][]byte, lo, hi *big.Int) ([]*big.Int, error) {
	out := make([]*big.Int, len(parts))
	for i, b := range parts {
		x, err := number(check, fmt.Sprintf("%s %d", name, i), b, lo, hi)
		if err != nil {
			return nil, err
		}
		out[i] = x
	}
	return out, nil
}
