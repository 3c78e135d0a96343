package tss

import "fmt"

// protocol is a library protocol as seen from outside: its message types in
// order of rounds.
type protocol struct {
	name   string
	curve  Curve
	kind   Kind
	rounds int // that have messages
	rules  []*rule
	byURL  map[string]*rule
}

// Frames of the session itself, beside those of the protocols.
var (
	ruleJoin  = &rule{name: "join", code: 1, limit: 1}
	ruleEcho  = &rule{name: "echo", code: 2, limit: 40 * maxParties}
	ruleProof = &rule{name: "proof", code: 3, limit: limitLarge + maxHeader}
)

const (
	// firstCode of the protocol messages; those below are the session's own.
	firstCode = 16
	// maxHeader bounds all of a frame but its payload: 270 bytes are usual.
	maxHeader = 512
)

// The tables below never change after start.
var (
	protocols = []*protocol{
		newProtocol("ecdsa-sign", Secp256k1, Sign, ecdsaSignRules()),
		newProtocol("ecdsa-keygen", Secp256k1, Keygen, ecdsaKeygenRules()),
		newProtocol("eddsa-sign", Ed25519, Sign, eddsaSignRules()),
		newProtocol("eddsa-keygen", Ed25519, Keygen, eddsaKeygenRules()),
	}
	rulesByCode, rulesByName = indexRules()
)

func newProtocol(name string, c Curve, k Kind, rules []*rule) *protocol {
	p := &protocol{name: name, curve: c, kind: k, rules: rules, byURL: map[string]*rule{}}
	for _, r := range rules {
		p.byURL[r.url] = r
		p.rounds = max(p.rounds, r.round)
		if r.limit == 0 {
			r.limit = limitSmall
		}
	}
	return p
}

func indexRules() (map[byte]*rule, map[string]*rule) {
	codes := map[byte]*rule{}
	names := map[string]*rule{}
	add := func(r *rule) {
		if codes[r.code] != nil || names[r.name] != nil {
			panic("tss: two message types share a code or name")
		}
		codes[r.code], names[r.name] = r, r
	}
	for _, r := range []*rule{ruleJoin, ruleEcho, ruleProof} {
		add(r)
	}
	next := byte(firstCode)
	for _, p := range protocols {
		for _, r := range p.rules {
			r.code = next
			next++
			add(r)
		}
	}
	return codes, names
}

func protocolOf(k Kind, c Curve) (*protocol, error) {
	for _, p := range protocols {
		if p.kind == k && p.curve == c {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no protocol for %s with %s", k, c)
}

func (p *protocol) has(r *rule) bool { return p.byURL[r.url] == r }

// inRound lists the types each party sends in a round.
func (p *protocol) inRound(round int) []*rule {
	var out []*rule
	for _, r := range p.rules {
		if r.round == round {
			out = append(out, r)
		}
	}
	return out
}
