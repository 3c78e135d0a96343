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
	ruleEcho  = &rule{name: "echo", code: 2, limit: 80 * maxMembers}
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
		newProtocol("ecdsa-reshare", Secp256k1, Reshare, ecdsaReshareRules()),
		newProtocol("eddsa-reshare", Ed25519, Reshare, eddsaReshareRules()),
	}
	rulesByCode, rulesByName = indexRules()
)

func newProtocol(name string, c Curve, k Kind, rules []*rule) *protocol {
	p := &protocol{name: name, curve: c, kind: k, rules: rules, byURL: map[string]*rule{}}
	slots := map[int]int{}
	for _, r := range rules {
		p.byURL[r.url] = r
		p.rounds = max(p.rounds, r.round)
		if r.broadcast {
			r.slot = slots[r.round]
			slots[r.round]++
		}
		if r.limit == 0 {
			r.limit = limitSmall
			if k == Sign {
				r.limit = limitSign
			}
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

// commitment is the type that r opens, or nil.
func (p *protocol) commitment(r *rule) *rule {
	if r.opens == "" {
		return nil
	}
	return rulesByName[r.opens]
}

// inRound lists the types that a party in role from sends one in role to, in a
// round. Broadcasts go to everybody, in whatever role: so all members compare
// the same, and all of them are in the transcript.
func (p *protocol) inRound(round int, from, to role) []*rule {
	var out []*rule
	for _, r := range p.rules {
		if r.round == round && r.role.of(from) && (r.broadcast || r.to.of(to)) {
			out = append(out, r)
		}
	}
	return out
}

// broadcasts lists the broadcast types of a round, in order of their slots.
func (p *protocol) broadcasts(round int) []*rule {
	var out []*rule
	for _, r := range p.rules {
		if r.round == round && r.broadcast {
			out = append(out, r)
		}
	}
	return out
}

// expects counts what a party in role from sends one in role to, in all rounds.
func (p *protocol) expects(from, to role) int {
	n := 0
	for round := range p.rounds {
		n += len(p.inRound(round+1, from, to))
	}
	return n
}

// role is what a member of a resharing is; a member of both committees is both.
// In the other protocols all are alike and it is 0.
type role uint8

const (
	dealer   role = 1 // holds a KeyShare of the generation dealt from
	receiver role = 2 // gets one of the new epoch
)

// of reports whether a member with those roles has this one.
func (r role) of(roles role) bool { return r == 0 || roles&r != 0 }
