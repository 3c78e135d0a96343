package tss

import (
	"crypto/ed25519"
	"math/big"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/coffer-network/coffer/tss/child"
)

// WithoutGuard makes the children of a Signer check nothing.
func WithoutGuard(c *Config) { c.InProcess, c.childArgs = false, []string{"without-guard"} }

// A child of this test binary may be started without its guard: its rules are
// emptied before it serves. No other program has this file.
var _ = func() bool {
	if len(os.Args) != 3 || os.Args[1] != child.Argument || os.Args[2] != "without-guard" {
		return false
	}
	for _, p := range protocols {
		for _, r := range p.rules {
			r.check = func(*guard, int, proto.Message) error { return nil }
		}
	}
	return true
}()

// Tamper lets a test replace what a Signer is about to sign and send: message
// name, recipient (-1: broadcast) and payload.
func (s *Signer) Tamper(f func(name string, to int, payload []byte) []byte) {
	g := func(o outgoing) []byte { return f(o.rule.name, o.to, o.payload) }
	s.tamper.Store(&g)
}

// EvidenceOf checks evidence as anyone could: it returns who signed it.
func EvidenceOf(cluster [32]byte, evidence []byte) (PartyID, error) {
	f, err := openFrame(cluster, nil, evidence)
	if err != nil {
		return PartyID{}, err
	}
	return f.env.From, nil
}

// Forge lets a test sign another version of a frame: change edits the envelope.
func Forge(key ed25519.PrivateKey, cluster [32]byte, raw []byte, change func(*Forged)) []byte {
	f, err := openFrame(cluster, nil, raw)
	if err != nil {
		panic(err)
	}
	e := Forged{Name: f.rule.name, Epoch: f.env.Epoch, Turn: f.env.Turn, Round: f.env.Round, Seen: f.env.Seen, Payload: f.env.Payload, Session: f.env.Session}
	change(&e)
	f.env.Epoch, f.env.Turn, f.env.Round, f.env.Seen, f.env.Payload, f.env.Session = e.Epoch, e.Turn, e.Round, e.Seen, e.Payload, e.Session
	return sealFrame(key, cluster, rulesByName[e.Name], f.env)
}

// Forged is what Forge may change.
type Forged struct {
	Name    string
	Session SessionID
	Epoch   uint64
	Turn    uint16
	Round   uint8
	Seen    []byte
	Payload []byte
}

// NameOf tells which message a frame carries.
func NameOf(raw []byte) string { return rulesByCode[raw[0]].name }

// PartyKeys returns the party keys of a request's parties, in order.
func PartyKeys(r Request) []*big.Int { return partyIDs(r, sortParties(r)).Keys() }
