package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
)

// A struck command changes nothing but the head and the halt, the same on every replica.
// Q members have to sign, each once, of this epoch, for this cluster, height and command.
//
// Seen failing with signatures counted, not members ("one twice"), with strangers counted,
// and with Height and with Cluster left out of At.
func TestStrike(t *testing.T) {
	g, keys := coreGenesis()
	s, err := NewState(g)
	if err != nil {
		t.Fatal(err)
	}
	raw := []byte("what ends every process")
	st, err := ParseStrike(s.Cluster, "1:"+Hash(sha256.Sum256(raw)).String())
	if err != nil {
		t.Fatal(err)
	}
	var sigs []MemberSig
	for _, k := range keys[:s.Epoch().Q()] {
		sigs = append(sigs, st.Sign(k))
	}
	if err := st.Verify(s.Epoch(), sigs); err != nil {
		t.Error(err)
	}
	other := st
	other.Height++
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	few := sigs[:len(sigs)-1]
	for name, sigs := range map[string][]MemberSig{
		"none": nil, "too few": few,
		"one twice":           append(slices.Clone(few), few[0]),
		"a stranger":          append(slices.Clone(few), st.Sign(stranger)),
		"for another command": append(slices.Clone(few), other.Sign(keys[len(few)])),
		"another member's":    append(slices.Clone(few), MemberSig{sigs[len(few)].Member, few[0].Sig}),
	} {
		if err := st.Verify(s.Epoch(), sigs); !errors.Is(err, ErrStrike) {
			t.Errorf("%s: %v", name, err)
		}
	}
	elsewhere := st
	elsewhere.Cluster[0]++
	if !st.At(s, raw) || other.At(s, raw) || elsewhere.At(s, raw) || st.At(s, []byte("another")) {
		t.Error("at another height, cluster or command, or not at its own")
	}

	twin, err := NewState(g)
	if err != nil {
		t.Fatal(err)
	}
	r, r2 := s.Strike(raw), twin.Strike(raw)
	if r.Code != Broken || s.Height != 1 || r.Header.Head() != s.Head || r2.Header != r.Header || string(Marshal(s)) != string(Marshal(twin)) {
		t.Errorf("%s at height %d; twin %+v, %+v", r.Code, s.Height, r2.Header, r.Header)
	}
	if s.OutflowsHalt != "BROKEN: struck out by operators" {
		t.Errorf("halt: %q", s.OutflowsHalt)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if executed, err := NewState(g); err != nil || executed.Execute(raw).Header.Head() == s.Head {
		t.Errorf("executed it comes to the same head: %v", err)
	}
}

func TestParseStrike(t *testing.T) {
	want := Strike{Cluster: sha256.Sum256([]byte("c")), Height: 12, Command: sha256.Sum256([]byte("x"))}
	if got, err := ParseStrike(want.Cluster, want.String()); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "12", "0:" + want.Command.String(), "12:" + want.Command.String()[1:], "12:" + want.Command.String() + "00", "x:" + want.Command.String()} {
		if _, err := ParseStrike(want.Cluster, text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}
