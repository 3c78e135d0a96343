package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Hash is a SHA-256 value.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MemberID names a seat: the Ed25519 public key of its node, which is also its
// libp2p identity and its raft ServerID.
type MemberID [32]byte

func (m MemberID) String() string { return hex.EncodeToString(m[:]) }

// MarshalText and UnmarshalText: hex, for files that people edit. The canonical
// encoding is that of codec.go.
func (h Hash) MarshalText() ([]byte, error)      { return hexText(h[:]), nil }
func (h *Hash) UnmarshalText(b []byte) error     { return fromHexText(h[:], b) }
func (m MemberID) MarshalText() ([]byte, error)  { return hexText(m[:]), nil }
func (m *MemberID) UnmarshalText(b []byte) error { return fromHexText(m[:], b) }

func hexText(b []byte) []byte { return []byte(hex.EncodeToString(b)) }

func fromHexText(to, text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(to) {
		return fmt.Errorf("%q: want %d hex digits", text, 2*len(to))
	}
	copy(to, b)
	return nil
}

// Sign signs body under a domain. Every signature of a node carries a domain of
// its own, so none can be shown for another purpose.
func Sign(key ed25519.PrivateKey, domain string, body []byte) [64]byte {
	return [64]byte(ed25519.Sign(key, append([]byte(domain), body...)))
}

// Verify reports whether sig is m's signature over body under domain.
func (m MemberID) Verify(domain string, body []byte, sig [64]byte) bool {
	return ed25519.Verify(m[:], append([]byte(domain), body...), sig[:])
}

// Member is one seat of an epoch.
type Member struct {
	ID       MemberID `cbor:"1,keyasint"`
	Name     string   `cbor:"2,keyasint"` // for people; unique in the epoch
	Operator string   `cbor:"3,keyasint"` // who runs it; one seat per operator
	Addr     string   `cbor:"4,keyasint"` // first multiaddr, a hint
}

// MaxMembers of an epoch: what a signature costs grows with the pairs of signers
// (spec: committee §1).
const MaxMembers = 10

// Epoch is a member set and its generation of KeyShares (spec: consensus R7).
type Epoch struct {
	Number     uint64   `cbor:"1,keyasint"`
	Members    []Member `cbor:"2,keyasint"` // sorted by ID
	F          int      `cbor:"3,keyasint"` // traitors tolerated
	M          int      `cbor:"4,keyasint"` // SigningThreshold: members needed for a signature
	FactQuorum int      `cbor:"5,keyasint"`
}

// N is the number of seats.
func (e Epoch) N() int { return len(e.Members) }

// C is the number of members that may be silent while outflows go on.
func (e Epoch) C() int { return (e.N() - e.F - 1) / 2 }

// Q is the approval quorum: two sets of Q among n share f+1 members, so an
// honest one.
func (e Epoch) Q() int { return (e.N()+e.F)/2 + 1 }

// Has reports whether id holds a seat.
func (e Epoch) Has(id MemberID) bool { return e.Seat(id) >= 0 }

// Seat is the position of id in Members, or -1.
func (e Epoch) Seat(id MemberID) int {
	return slices.IndexFunc(e.Members, func(m Member) bool { return m.ID == id })
}

// Validate checks the relations of spec consensus §6.4.
func (e Epoch) Validate(allowNoFaultTolerance bool) error {
	n, f, c, m := e.N(), e.F, e.C(), e.M
	switch {
	case n < 3 || n > MaxMembers:
		return fmt.Errorf("n = %d members, want 3 to %d", n, MaxMembers)
	case f < 0 || n < 2*c+f+1 || c < 0:
		return fmt.Errorf("f = %d traitors do not fit n = %d", f, n)
	case m == n && !allowNoFaultTolerance: // where c = 0 the bound below would let it pass
		return fmt.Errorf("signing threshold m = n = %d: one silent member stops all payouts, which the genesis does not allow", n)
	case m < max(2, f+1) || m > n-c && m != n:
		return fmt.Errorf("signing threshold m = %d, want %d to %d for n = %d, f = %d", m, max(2, f+1), n-c, n, f)
	case e.FactQuorum < f+1 || e.FactQuorum > n-c:
		return fmt.Errorf("fact quorum %d, want %d to %d", e.FactQuorum, f+1, n-c)
	}
	names, operators := map[string]bool{}, map[string]bool{}
	for i, s := range e.Members {
		if i > 0 && slices.Compare(e.Members[i-1].ID[:], s.ID[:]) >= 0 {
			return errors.New("members not sorted by id, or doubled")
		}
		if names[s.Name] || operators[s.Operator] {
			return fmt.Errorf("member %q: name or operator %q held twice", s.Name, s.Operator)
		}
		names[s.Name], operators[s.Operator] = true, true
	}
	return nil
}

// MembersHash is M_i of spec consensus R3: what an approval says about the
// member set that the next certificates are counted with.
func (e Epoch) MembersHash() Hash {
	body := Marshal([]any{e.Number, e.Members, e.N(), e.F, e.C(), e.M, e.Q(), e.FactQuorum})
	return sha256.Sum256(append([]byte("coffer/members/1"), body...))
}

// Header is what the head at one height hashes (spec: consensus R2).
type Header struct {
	Height  uint64 `cbor:"1,keyasint"`
	Prev    Hash   `cbor:"2,keyasint"` // head of Height-1; the genesis hash at height 1
	Command Hash   `cbor:"3,keyasint"` // SHA-256 of the command's bytes
	Result  Hash   `cbor:"4,keyasint"` // SHA-256 of code and effects
	Root    Hash   `cbor:"5,keyasint"` // state root where one is folded, else zero
}

// Head is H_i of spec consensus R2.
func (h Header) Head() Hash {
	b := append([]byte("coffer/head/1"), h.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Height)
	b = append(b, h.Command[:]...)
	b = append(b, h.Result[:]...)
	return sha256.Sum256(append(b, h.Root[:]...))
}

// RootInterval: every such height folds a state root, and so does every height
// that opens an epoch.
const RootInterval = 4096

// Approval is what a member promises about one head (spec: consensus R3).
type Approval struct {
	Cluster    Hash   `cbor:"1,keyasint"`
	Epoch      uint64 `cbor:"2,keyasint"` // the epoch whose members count
	Height     uint64 `cbor:"3,keyasint"`
	Head       Hash   `cbor:"4,keyasint"`
	RootHeight uint64 `cbor:"5,keyasint"` // last height ≤ Height that folds a root; 0 before the first
	Root       Hash   `cbor:"6,keyasint"`
	Members    Hash   `cbor:"7,keyasint"` // MembersHash of the epoch open after Height
}

const approvalDomain = "coffer/approval/1"

// MemberSig is one member's signature over something said elsewhere.
type MemberSig struct {
	Member MemberID `cbor:"1,keyasint"`
	Sig    [64]byte `cbor:"2,keyasint"`
}

// SignApproval signs a with a node's identity key.
func SignApproval(key ed25519.PrivateKey, a Approval) MemberSig {
	return MemberSig{
		Member: MemberID(key.Public().(ed25519.PublicKey)),
		Sig:    Sign(key, approvalDomain, Marshal(a)),
	}
}

// VerifyApproval reports whether s is a signature over a.
func VerifyApproval(a Approval, s MemberSig) bool {
	return s.Member.Verify(approvalDomain, Marshal(a), s.Sig)
}

// Certificate is Q equal approvals of one head (spec: consensus R4).
type Certificate struct {
	Approval   Approval    `cbor:"1,keyasint"`
	Signatures []MemberSig `cbor:"2,keyasint"` // sorted by member, each once
}

// Verify checks c against the members it claims to speak for. The caller says
// which epoch that is; a certificate never brings its own member set.
func (c Certificate) Verify(cluster Hash, e Epoch) error {
	if c.Approval.Cluster != cluster {
		return errors.New("certificate of another cluster")
	}
	if c.Approval.Epoch != e.Number {
		return fmt.Errorf("certificate of epoch %d, want %d", c.Approval.Epoch, e.Number)
	}
	if len(c.Signatures) < e.Q() || len(c.Signatures) > e.N() {
		return fmt.Errorf("certificate with %d signatures, want %d", len(c.Signatures), e.Q())
	}
	for i, s := range c.Signatures {
		if i > 0 && slices.Compare(c.Signatures[i-1].Member[:], s.Member[:]) >= 0 {
			return errors.New("certificate's signers not sorted, or doubled")
		}
		if !e.Has(s.Member) {
			return fmt.Errorf("certificate signed by %s, no member of epoch %d", s.Member, e.Number)
		}
		if !VerifyApproval(c.Approval, s) {
			return fmt.Errorf("certificate: bad signature of %s", s.Member)
		}
	}
	return nil
}
