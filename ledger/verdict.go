package ledger

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/coffer-network/coffer/ledger/address"
)

// SignatureCheck is one signature to judge, with everything its verdict depends
// on: equal checks have equal verdicts, on every node and at any time, whatever
// state the ledger is in (spec: requests §5).
type SignatureCheck struct {
	Scheme    string // of address.Schemes, or schemeMember
	Network   string
	Address   string // of a member: its id's 32 bytes
	Message   []byte
	Signature string // as on the wire of the scheme; of a member: 64 bytes
	Extras    address.Extras
}

// schemeMember is a member's own signature, under a domain.
const schemeMember = "member"

// Verify judges the signature: tens to hundreds of microseconds.
func (c SignatureCheck) Verify() bool {
	if c.Scheme == schemeMember {
		return len(c.Address) == len(MemberID{}) && len(c.Signature) == 64 &&
			MemberID([]byte(c.Address)).Verify("", c.Message, [64]byte([]byte(c.Signature)))
	}
	return address.Verify(c.Scheme, c.Network, c.Address, c.Message, c.Signature, c.Extras)
}

// Key is what a verdict is kept under: a hash over all of c, each part with its
// length, so that no two checks share one.
func (c SignatureCheck) Key() Hash {
	format := []byte{}
	if c.Extras.Format != nil {
		format = []byte{*c.Extras.Format}
	}
	h := sha256.New()
	for _, part := range [][]byte{
		[]byte(c.Scheme), []byte(c.Network), []byte(c.Address), c.Message, []byte(c.Signature),
		[]byte(c.Extras.ApplicationDomain), format, c.Extras.PublicKeyDER,
	} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return Hash(h.Sum(nil))
}

// Verdicts says whether a signature is good. It must answer what Verify would:
// it may have asked before, never anybody else.
//
// Why data and not a cache in here: the ledger has no goroutines and no clock,
// and a state that held verdicts would have to agree on them.
type Verdicts interface {
	Verdict(SignatureCheck) bool
}

// computed has asked nobody before.
type computed struct{}

func (computed) Verdict(c SignatureCheck) bool { return c.Verify() }

// SignatureChecks lists the signatures that applying the command may have to
// judge, for whoever judges them early. A command that is none has none. What s
// is missing costs time only: Execute judges whatever it is not told.
func (s *State) SignatureChecks(raw []byte) []SignatureCheck {
	if len(raw) > MaxCommand {
		return nil
	}
	var c Command
	if err := Unmarshal(raw, &c); err != nil {
		return nil
	}
	switch {
	case c.Intent != nil && c.Attestation == nil:
		return s.IntentChecks(c.Intent)
	case c.Attestation != nil && c.Intent == nil && c.Attestation.Cluster == s.Cluster && s.maySay(c.Attestation.Member, c.Attestation.Kind):
		return []SignatureCheck{c.Attestation.check()}
	}
	return nil
}

// IntentChecks lists the signatures of a request: its Signer's, and that of the
// wallet to be linked. Nil for a text that is no request to this cluster and for
// schemes that the ledger does not take.
func (s *State) IntentChecks(in *Intent) []SignatureCheck {
	r, code := s.parse(in.Text)
	if code != OK || r.Cluster != s.ClusterName() {
		return nil
	}
	var checks []SignatureCheck
	if c, ok := s.walletCheck(r, r.Signer, in.Scheme, in.Signature, in.Extras); ok {
		checks = append(checks, c)
	}
	if in.Co != nil && r.Action == address.ActionLinkWallet {
		if c, ok := s.walletCheck(r, r.NewWallet, in.Co.Scheme, in.Co.Signature, in.Co.Extras); ok {
			checks = append(checks, c)
		}
	}
	return checks
}

// walletCheck is a wallet's signature over a request; false where the wallet
// cannot sign it under this scheme.
func (s *State) walletCheck(r request, by address.CAIP10, scheme, signature string, x address.Extras) (SignatureCheck, bool) {
	if !s.TakesScheme(scheme, by.Namespace) {
		return SignatureCheck{}, false
	}
	message, ok := r.grammar.Message(scheme, by, r.Command)
	return SignatureCheck{
		Scheme: scheme, Network: by.Network(), Address: by.Address, Message: message, Signature: signature, Extras: x,
	}, ok
}

// TakesScheme reports whether a wallet of the CAIP-2 namespace may sign requests
// under the scheme. eip712 is off unless the parameters say otherwise (spec:
// requests §2).
func (s *State) TakesScheme(scheme, namespace string) bool {
	return address.SchemeFits(scheme, namespace) && (scheme != address.SchemeEIP712 || s.Params.EIP712)
}

// signedBy reports whether a wallet signed the request.
func (x *execution) signedBy(r request, by address.CAIP10, scheme, signature string, e address.Extras) bool {
	c, ok := x.s.walletCheck(r, by, scheme, signature, e)
	return ok && x.verdicts.Verdict(c)
}
