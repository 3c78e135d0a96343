package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Drill is the proof that the backups of m operators reproduce the keys: test
// signatures that they made with KeyShares out of their backups (spec: committee
// §11). The signatures are the evidence, so one member's word is enough.
//
// Why not who took part: a threshold signature does not tell, and a word for it
// would prove nothing.
type Drill struct {
	Name       string   `cbor:"1,keyasint"` // as the operators agreed, new for every drill
	Signatures [][]byte `cbor:"2,keyasint"` // over DrillMessage, of every key that signs now, in the order of key ids
}

// Drilled is a drill that counted.
type Drilled struct {
	Name   string `cbor:"1,keyasint"`
	Millis uint64 `cbor:"2,keyasint"` // ledger time when it was told
}

// Limits of drills. One is due every month, like new KeyShares: 64 of the same ones
// are five years of neglect. Names are kept so that none counts twice.
const (
	MaxDrillName = 64 // bytes
	maxDrills    = 64 // of one generation
)

// DrillName reports whether a drill may be called so: 1 to MaxDrillName bytes, all of
// them to be seen.
func DrillName(name string) bool {
	return name != "" && len(name) <= MaxDrillName && !slices.ContainsFunc([]rune(name), func(r rune) bool { return r < ' ' || r == 0x7f })
}

// DrillMessage is what a drill signs of a key: KeyShares of an epoch prove
// nothing about those of another. Like a test signature's it begins with words
// that no chain can parse (spec: signing §6).
func DrillMessage(cluster Hash, key string, epoch uint64, name string) Hash {
	b := append([]byte("coffer/drill/1"), cluster[:]...)
	b = append(b, byte(len(key)))
	b = append(b, key...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	return sha256.Sum256(append(b, name...))
}

// drill notes one: BAD_SIGNATURE also for one of KeyShares that are not in force,
// BAD_PARAM for a name that was told before, LIMIT.
func (x *execution) drill(_ MemberID, d Drill) Code {
	s := x.s
	info := s.Infos.at(s.Epoch().Number)
	known := s.drills()
	switch {
	case !DrillName(d.Name), len(info.Keys) == 0 || len(d.Signatures) != len(info.Keys):
		return Malformed
	case slices.ContainsFunc(known, func(o Drilled) bool { return o.Name == d.Name }):
		return BadParam
	case len(known) >= maxDrills:
		return Limit
	}
	for i, g := range info.Keys {
		k := s.Keys.at(g.Key)
		if !VerifyKey(k.Curve, k.Pub, DrillMessage(s.Cluster, g.Key, g.Epoch, d.Name), d.Signatures[i]) {
			return BadSignature
		}
	}
	info.Drills = append(slices.Clip(info.Drills), Drilled{Name: d.Name, Millis: s.Millis})
	s.Infos.put(s.Epoch().Number, info)
	x.emit(Event{Name: "drilled", Note: d.Name})
	return OK
}

// drills are those of the KeyShares in force, oldest first. A rollback brings back
// those of its generation.
func (s *State) drills() (all []Drilled) {
	now := s.Infos.at(s.Epoch().Number).Keys
	for _, e := range s.Epochs {
		if info := s.Infos.at(e.Number); slices.Equal(info.Keys, now) {
			all = append(all, info.Drills...)
		}
	}
	return all
}

// Drilled says when a drill of the KeyShares in force was last told, ledger time in
// ms. False: none was; then it is when their epoch came into force, from which on
// one is due. 0: there are no keys.
func (s *State) Drilled() (millis uint64, ok bool) {
	if all := s.drills(); len(all) > 0 {
		return all[len(all)-1].Millis, true
	}
	return s.Infos.at(s.Epoch().Number).Flipped, false
}
