package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Strike names a command that operators take out of the log's effect, for it ends every
// process that applies it, and no panic can be caught: memory or the stack runs out
// (spec: consensus §1). On each node that is given it with the signatures of Q members the
// command comes to BROKEN, as if it had panicked: it changes nothing, and payouts halt until
// a vote. A node that is not given it cannot go on, and one that is given another comes to
// another head, which nobody certifies.
type Strike struct {
	Cluster Hash   `cbor:"1,keyasint"`
	Height  uint64 `cbor:"2,keyasint"`
	Command Hash   `cbor:"3,keyasint"` // SHA-256 of its bytes
}

const strikeDomain = "coffer/strike/1"

// ParseStrike reads HEIGHT:SHA256, in decimal and hex.
func ParseStrike(cluster Hash, text string) (Strike, error) {
	height, command, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(height, 10, 64)
	b, err1 := hex.DecodeString(command)
	if err != nil || err1 != nil || n == 0 || len(b) != len(Hash{}) {
		return Strike{}, fmt.Errorf("command %q: want HEIGHT:SHA256, as the node that it ends says at its next start", text)
	}
	return Strike{cluster, n, Hash(b)}, nil
}

// String is HEIGHT:SHA256.
func (s Strike) String() string { return fmt.Sprintf("%d:%s", s.Height, s.Command) }

// Sign signs s with a member's identity key.
func (s Strike) Sign(key ed25519.PrivateKey) MemberSig {
	return MemberSig{MemberID(key.Public().(ed25519.PublicKey)), Sign(key, strikeDomain, Marshal(s))}
}

// ErrStrike: fewer than Q members of the epoch in force have signed a Strike.
var ErrStrike = errors.New("not signed by Q members of the epoch in force")

// Verify counts the members of e that signed s.
func (s Strike) Verify(e Epoch, sigs []MemberSig) error {
	by := map[MemberID]bool{}
	for _, x := range sigs {
		if e.Has(x.Member) && x.Member.Verify(strikeDomain, Marshal(s), x.Sig) {
			by[x.Member] = true
		}
	}
	if len(by) < e.Q() {
		return fmt.Errorf("command %s: %w: %d of %d", s, ErrStrike, len(by), e.Q())
	}
	return nil
}

// At reports whether raw, were it executed next on st, is what s names.
func (s Strike) At(st *State, raw []byte) bool {
	return s.Height == st.Height+1 && s.Cluster == st.Cluster && s.Command == sha256.Sum256(raw)
}

// Strike folds a command without executing it: BROKEN.
func (s *State) Strike(raw []byte) Result {
	x := &execution{s: s}
	return s.close(x, raw, x.breaks("struck out by operators"), false)
}
