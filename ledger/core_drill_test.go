package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// drill is what m operators hold in their hands when they have signed.
func (c *seats) drill(name string, epoch uint64) Drill {
	d := Drill{Name: name}
	for _, g := range c.s.Infos.at(c.s.Epoch().Number).Keys {
		d.Signatures = append(d.Signatures, c.sign(g.Key, DrillMessage(c.s.Cluster, g.Key, epoch, name)))
	}
	return d
}

// Any one member tells of a drill, since the signatures prove it. Plants each way in
// which one must not count: without a signature, with another key's, of another
// cluster, name or epoch, of KeyShares no longer in force, twice, from who holds no
// seat, and past the limit. Seen failing with the signatures not verified ("no
// signature: OK"), with the epoch left out of what is signed ("another epoch: OK"),
// with names not remembered ("twice: OK") and with names remembered of one epoch only
// ("told before the rollback: OK").
func TestDrill(t *testing.T) {
	c := seated(t)
	ms := c.members()
	flipped := c.s.Infos.at(1).Flipped
	if at, ok := c.s.Drilled(); ok || at != flipped {
		t.Errorf("no drill: %d %v, want %d", at, ok, flipped)
	}
	refused := func(what string, want Code, d Drill) {
		t.Helper()
		before := c.s.drills()
		if code := c.by(ms[0], KindDrill, d); code != want || !slices.Equal(before, c.s.drills()) {
			t.Errorf("%s: %s, want %s", what, code, want)
		}
	}
	good := c.drill("2026-05-01", 1)
	changed := func(f func(*Drill)) Drill {
		d := Drill{Name: good.Name, Signatures: slices.Clone(good.Signatures)}
		f(&d)
		return d
	}
	refused("no name", Malformed, c.drill("", 1))
	refused("a long name", Malformed, c.drill(strings.Repeat("x", MaxDrillName+1), 1))
	refused("a name that cannot be seen", Malformed, c.drill("may\n", 1))
	refused("one key of two", Malformed, changed(func(d *Drill) { d.Signatures = d.Signatures[:1] }))
	refused("no signature", BadSignature, changed(func(d *Drill) { d.Signatures[1] = nil }))
	refused("keys exchanged", BadSignature, changed(func(d *Drill) { slices.Reverse(d.Signatures) }))
	refused("another name", BadSignature, changed(func(d *Drill) { d.Name = "2026-06-01" }))
	refused("a changed signature", BadSignature, changed(func(d *Drill) {
		d.Signatures[0] = bytes.Clone(d.Signatures[0])
		d.Signatures[0][5] ^= 1
	}))
	refused("another epoch", BadSignature, c.drill("2026-05-01", 2))
	cluster := c.s.Cluster
	c.s.Cluster = Hash{1}
	other := c.drill("2026-05-01", 1)
	c.s.Cluster = cluster
	refused("another cluster", BadSignature, other)
	if code := c.by(newcomer(7).ID, KindDrill, good); code != NotAllowed {
		t.Errorf("a stranger's: %s", code)
	}

	c.wait(60_000)
	if code := c.by(ms[0], KindDrill, good); code != OK {
		t.Fatalf("a drill: %s", code)
	}
	if at, ok := c.s.Drilled(); !ok || at != c.s.Millis {
		t.Errorf("drilled at %d %v, now %d", at, ok, c.s.Millis)
	}
	refused("twice", BadParam, good)

	row := c.s.Epoch().Row()
	c.decide(seatProposal(ProposeRefresh, Seats{Row: row}), ms)
	c.wait(6_000)
	c.reshare()
	c.inForce(ms)
	c.proveTests()
	if at, ok := c.s.Drilled(); ok || at != c.s.Infos.at(2).Flipped {
		t.Errorf("a drill of older key shares counts: %d %v", at, ok)
	}
	refused("the shares before", BadSignature, c.drill("2026-07-01", 1))
	c.decide(seatProposal(ProposeRollback, Seats{Epoch: 1, Row: row}), ms)
	c.inForce(ms)
	c.proveTests()
	refused("told before the rollback", BadParam, good)
	if _, ok := c.s.Drilled(); !ok {
		t.Error("a rollback forgets the drills of its key shares")
	}
	for i := range maxDrills - 1 {
		if code := c.by(ms[i%4], KindDrill, c.drill(fmt.Sprint("drill ", i), 1)); code != OK {
			t.Fatalf("drill %d: %s", i, code)
		}
	}
	refused("too many", Limit, c.drill("one more", 1))
}
