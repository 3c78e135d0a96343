package tss

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/coffer-network/coffer/tss/keystore"
)

// PartyID names a member: the Ed25519 public key of its node.
type PartyID [32]byte

func (p PartyID) String() string { return hex.EncodeToString(p[:4]) }

// SessionID names one protocol run; see SessionName.
type SessionID [32]byte

func (s SessionID) String() string { return hex.EncodeToString(s[:8]) }

// Kind says what a session makes.
type Kind uint8

const (
	Sign    Kind = 1
	Keygen  Kind = 2
	Reshare Kind = 3
)

func (k Kind) String() string {
	switch k {
	case Sign:
		return "sign"
	case Keygen:
		return "keygen"
	case Reshare:
		return "reshare"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Curve is a property of a key.
type Curve string

const (
	Secp256k1 Curve = "secp256k1" // ECDSA
	Ed25519   Curve = "ed25519"
)

// KeyID names a master key of the cluster.
type KeyID struct {
	ID    string
	Curve Curve
}

// Request is one session as this node understands it, from its own ledger.
// Parties that understand another one compute another SessionID and never meet.
type Request struct {
	Session SessionID
	Cluster [32]byte
	Kind    Kind
	Key     KeyID
	Epoch   uint64 // of the KeyShares used or made
	Try     uint64 // of the keygen or resharing that makes, or made, them
	Staged  bool   // Sign: a test signature, whose KeyShare may still be staged
	At      [32]byte
	Batch   uint64
	Attempt uint64
	Input   uint16
	Turn    uint16
	Tweak   [32]byte   // Sign: big-endian additive scalar; zero = master key
	Parties []PartyID  // Sign: exactly m; Keygen, Reshare: all members of Epoch. Any order
	M       int        // Keygen, Reshare: SigningThreshold of the KeyShares made
	From    Generation // Reshare: the KeyShares dealt from
	Digest  []byte     // ECDSA: 32 bytes. Ed25519: the whole message. Sign only
	// Deadline counts from the moment all joined; 0 means the default of the
	// kind and curve.
	Deadline time.Duration
}

// Generation is a key's KeyShares of one epoch, as a resharing deals from them.
type Generation struct {
	Epoch uint64
	Try   uint64
	M     int // its SigningThreshold
	// Holders are the members of it that deal: M or more, in any order. Every
	// one of them is needed, so more than M make a resharing more fragile.
	Holders []PartyID
	Pub     []byte // the key's public key by the ledger, compressed
}

// Signature is a finished signature. Ed25519: R, S as on the wire.
type Signature struct {
	R     [32]byte `cbor:"1,keyasint"`
	S     [32]byte `cbor:"2,keyasint"`
	RecID byte     `cbor:"3,keyasint"`
}

// Bytes is R‖S.
func (s Signature) Bytes() []byte { return append(bytes.Clone(s.R[:]), s.S[:]...) }

// KeygenResult says what a keygen or a resharing made. The KeyShare itself is
// staged in the keystore as ID.
type KeygenResult struct {
	ID             keystore.ShareID // empty: this member dealt and holds none of the new epoch
	Pub            []byte           // compressed, as on the chains
	TranscriptHash [32]byte
}

const (
	// maxMessage bounds an Ed25519 message: far above any transaction
	// (Solana's are at most 1,232 bytes).
	maxMessage = 64 << 10
	// maxParties: cost grows with m(m-1), and ten is the most the spec allows.
	maxParties = 10
	// maxMembers of a session: a resharing has two sets of parties.
	maxMembers = 2 * maxParties
)

// SessionName computes the name of r (spec: signing §2). At makes members whose
// histories differ before the plan, and the digest those whose plans differ,
// compute different names.
func SessionName(r Request) SessionID {
	return named(r).session(r.Cluster)
}

// partyKey is the x coordinate at which a member's share of one generation
// stands: fresh per epoch, because a resharing must not see one key in both
// committees (spec: signing §7).
func partyKey(cluster [32]byte, key string, epoch uint64, member PartyID, order *big.Int) *big.Int {
	b := append([]byte("coffer/party/1"), cluster[:]...)
	b = append(b, key...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(b, member[:]...)
	h := sha256.Sum256(b)
	k := new(big.Int).SetBytes(h[:])
	return k.Mod(k, order)
}

// sortParties returns the parties in order of their party keys.
func sortParties(r Request) []PartyID { return sortByKey(r, r.Epoch, r.Parties) }

// sortHolders returns the dealers of a resharing in order of their party keys.
func sortHolders(r Request) []PartyID { return sortByKey(r, r.From.Epoch, r.From.Holders) }

func sortByKey(r Request, epoch uint64, members []PartyID) []PartyID {
	ps := slices.Clone(members)
	order := curveOrder(r.Key.Curve)
	if order == nil {
		return ps
	}
	slices.SortFunc(ps, func(a, b PartyID) int {
		return partyKey(r.Cluster, r.Key.ID, epoch, a, order).Cmp(partyKey(r.Cluster, r.Key.ID, epoch, b, order))
	})
	return ps
}

// sorted returns r with its members in order of their party keys.
func (r Request) sorted() Request {
	r.Parties = sortParties(r)
	if r.Kind == Reshare {
		r.From.Holders = sortHolders(r)
	}
	return r
}

// uses names the KeyShare that a session of this member needs, or makes where it
// needs none: with that share its joined line is pruned.
func (r Request) uses(self PartyID) keystore.ShareID {
	if dealer.of(r.rolesOf(self)) && r.Kind == Reshare {
		return keystore.ShareID{Key: r.Key.ID, Epoch: r.From.Epoch, Try: r.From.Try}
	}
	return keystore.ShareID{Key: r.Key.ID, Epoch: r.Epoch, Try: r.Try}
}

// members of the session of a sorted request: its parties and, in a resharing,
// the dealers that are not among them.
func (r Request) members() []PartyID {
	ms := slices.Clone(r.Parties)
	for _, h := range r.From.Holders {
		if !slices.Contains(r.Parties, h) {
			ms = append(ms, h)
		}
	}
	return ms
}

// rolesOf says in which roles a member takes part.
func (r Request) rolesOf(p PartyID) role {
	if r.Kind != Reshare {
		return 0
	}
	var as role
	if slices.Contains(r.From.Holders, p) {
		as |= dealer
	}
	if slices.Contains(r.Parties, p) {
		as |= receiver
	}
	return as
}

// check refuses a request that no session could be run for. These are mistakes
// of the caller, not of a peer.
func (r Request) check(self PartyID, cluster [32]byte) error {
	switch {
	case r.Cluster != cluster:
		return errors.New("request of another cluster")
	case r.Key.ID == "" || len(r.Key.ID) > keystore.MaxName:
		return errors.New("request without a usable key id")
	case curveOrder(r.Key.Curve) == nil:
		return fmt.Errorf("unknown curve %q", r.Key.Curve)
	case len(r.Parties) < 2 || len(r.Parties) > maxParties:
		return fmt.Errorf("%d parties, want 2 to %d", len(r.Parties), maxParties)
	case !slices.Contains(r.members(), self):
		return errors.New("this node is no party of the session")
	case r.Session != SessionName(r):
		return errors.New("session is not named after its request")
	}
	sorted := sortParties(r)
	for i := range sorted {
		if i > 0 && sorted[i] == sorted[i-1] {
			return fmt.Errorf("party %s doubled", sorted[i])
		}
	}
	switch r.Kind {
	case Sign:
		return r.checkSign()
	case Keygen:
		return r.checkMade()
	case Reshare:
		return errors.Join(r.checkMade(), r.checkFrom())
	}
	return fmt.Errorf("unknown kind %d", r.Kind)
}

// checkMade is what keygen and resharing have in common.
func (r Request) checkMade() error {
	switch {
	case r.M < 2 || r.M > len(r.Parties):
		return fmt.Errorf("signing threshold %d of %d parties", r.M, len(r.Parties))
	case len(r.Digest) != 0 || r.Tweak != [32]byte{}:
		return fmt.Errorf("a %s has neither digest nor tweak", r.Kind)
	}
	return nil
}

func (r Request) checkFrom() error {
	f := r.From
	switch {
	case f.Epoch >= r.Epoch:
		// Epoch numbers never repeat, and equal ones would give equal party keys.
		return fmt.Errorf("reshare epoch %d from epoch %d", r.Epoch, f.Epoch)
	case f.M < 2 || len(f.Holders) < f.M || len(f.Holders) > maxParties:
		return fmt.Errorf("%d dealers for signing threshold %d", len(f.Holders), f.M)
	case len(f.Pub) == 0:
		return errors.New("a resharing without the public key")
	}
	// The library takes one key in both committees, or zero, without a word.
	taken := map[string]bool{"0": true}
	order := curveOrder(r.Key.Curve)
	for _, g := range []struct {
		epoch   uint64
		members []PartyID
	}{{f.Epoch, f.Holders}, {r.Epoch, r.Parties}} {
		for _, p := range g.members {
			k := partyKey(r.Cluster, r.Key.ID, g.epoch, p, order).String()
			if taken[k] {
				return fmt.Errorf("party %s doubled, or without a usable party key", p)
			}
			taken[k] = true
		}
	}
	return nil
}

func (r Request) checkSign() error {
	if new(big.Int).SetBytes(r.Tweak[:]).Cmp(curveOrder(r.Key.Curve)) >= 0 {
		return errors.New("tweak is not below the order of the curve")
	}
	switch {
	case r.Key.Curve == Secp256k1 && len(r.Digest) != 32:
		return fmt.Errorf("digest of %d bytes, want 32", len(r.Digest))
	case r.Key.Curve == Ed25519 && (len(r.Digest) == 0 || len(r.Digest) > maxMessage):
		return fmt.Errorf("message of %d bytes, want 1 to %d", len(r.Digest), maxMessage)
	}
	return nil
}
