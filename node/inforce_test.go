package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss/keystore"
)

// rollBack opens the next epoch with what signed in the one before, and brings it
// into force.
func (c *cluster) rollBack() {
	c.t.Helper()
	to := c.s.Epochs[len(c.s.Epochs)-2]
	p := ledger.Proposal{Kind: ledger.ProposeRollback, Text: "back", Seats: &ledger.Seats{Epoch: to.Number, Row: to.Row()}}
	c.say(0, ledger.KindVote, ledger.Vote{Hash: p.Hash(), Yes: true, Proposal: &p})
	for i := 1; c.s.Opening == nil; i++ {
		c.say(i, ledger.KindVote, ledger.Vote{Hash: p.Hash(), Yes: true})
	}
	c.say(0, ledger.KindFlip, c.flip())
}

// A node notes which KeyShares the ledger has in force, at each flip and after a
// rollback the older ones; a log that is replayed, or a note that cannot be read,
// does not lead it back; and without a seat it notes none. Seen failing with the
// note left out of the keeper's round (TestCommitteeTurnsOnItself), with the newest
// epoch's KeyShares noted ("after a rollback") and with any epoch noted that is
// passed through ("a replay").
func TestWhatIsInForceIsNoted(t *testing.T) {
	c := running(t, func(g *ledger.Genesis) { g.Params.RollbackSeconds = 86_400 })
	dir := filepath.Join(t.TempDir(), "keystore")
	ks, err := keystore.Init(dir, []byte("p"), keystore.Options{Node: idOf(c.keys[3]), TestWorkFactor: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer ks.Close()
	n := func() *Node { return &Node{self: idOf(c.keys[3]), keys: ks, log: slog.New(slog.DiscardHandler)} }
	node := n()
	ids := func(epoch uint64) []keystore.ShareID {
		return []keystore.ShareID{{Key: ledger.KeyECDSA1, Epoch: epoch, Try: 1}, {Key: ledger.KeyEd255191, Epoch: epoch, Try: 1}}
	}
	is := func(when string, epoch uint64, shares []keystore.ShareID) {
		t.Helper()
		got := readInForce(ks)
		if info, _ := c.s.Infos.Get(epoch); got.Epoch != epoch || got.Height != info.Height || !slices.Equal(got.Shares, shares) {
			t.Fatalf("%s: %+v, want epoch %d with %v since height %d", when, got, epoch, shares, info.Height)
		}
	}
	young := newCluster(t).s
	node.noteInForce(young)
	if f := readInForce(ks); f.Epoch != 0 || f.Shares != nil {
		t.Fatalf("before there are keys: %+v", f)
	}
	node.noteInForce(c.s)
	is("the first epoch", 1, ids(1))
	first := c.s.Frozen()
	c.refresh()
	node.noteInForce(c.s)
	is("after a refresh", 2, ids(2))
	c.rollBack()
	node.noteInForce(c.s)
	is("after a rollback", 3, ids(1))
	node.noteInForce(first)
	n().noteInForce(first)
	is("a replay after a restart", 3, ids(1))

	if err := ks.Put(inForceName, []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	if f := readInForce(ks); f.Epoch != 0 || f.Shares != nil {
		t.Errorf("a damaged note: %+v", f)
	}
	n().noteInForce(c.s)
	is("over a damaged note", 3, ids(1))

	stranger := n()
	stranger.self = ledger.MemberID{9}
	if err := ks.Put(inForceName, nil); err != nil {
		t.Fatal(err)
	}
	stranger.noteInForce(c.s)
	is("without a seat", 3, nil)
}

// What a backup holds: what signs, what a rollback brings back, what a flip may
// bring; not what a rollback left, nor tries that led to nothing. Without a note the
// newest that were ever in force are taken for those that are. Seen failing with
// everything that is not wiped taken ("after a rollback", "staged").
func TestPlanBackup(t *testing.T) {
	id := func(epoch, try uint64) keystore.ShareID { return keystore.ShareID{Key: "k", Epoch: epoch, Try: try} }
	const S, A, R, W = keystore.Staged, keystore.Active, keystore.Retired, keystore.Wiped
	type states = map[keystore.ShareID]keystore.ShareState
	note := func(epoch uint64, of keystore.ShareID) inForce {
		return inForce{Epoch: epoch, Shares: []keystore.ShareID{of}}
	}
	for when, tc := range map[string]struct {
		now  inForce
		held states
		want string
	}{
		"the first epoch":     {note(1, id(1, 2)), states{id(1, 1): S, id(1, 2): A}, "1/2"},
		"after a refresh":     {note(3, id(3, 1)), states{id(1, 1): W, id(2, 1): R, id(3, 1): A}, "2/1 3/1"},
		"not retired yet":     {note(3, id(3, 1)), states{id(2, 1): A, id(3, 1): A}, "2/1 3/1"},
		"after a rollback":    {note(3, id(1, 1)), states{id(1, 1): R, id(2, 1): R}, "1/1"},
		"a flip cut short":    {note(2, id(2, 1)), states{id(1, 1): A, id(2, 1): S}, "1/1 2/1"},
		"staged":              {note(3, id(1, 1)), states{id(1, 1): R, id(2, 7): S, id(4, 1): S, id(4, 2): S}, "1/1 4/1 4/2"},
		"not held":            {note(2, id(2, 1)), states{id(1, 1): A}, "1/1 2/1"},
		"no note":             {inForce{}, states{id(1, 1): R, id(2, 1): A, id(3, 1): S}, "1/1 2/1 3/1"},
		"no note, a rollback": {inForce{}, states{id(1, 1): R, id(2, 1): R}, "1/1 2/1"},
	} {
		if tc.now.Epoch == 0 {
			tc.now = newestInForce(tc.held)
		}
		var got []string
		for _, x := range planBackup(tc.now, tc.held) {
			got = append(got, fmt.Sprintf("%d/%d", x.Epoch, x.Try))
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s: %s, want %s", when, s, tc.want)
		}
	}
}

// A node that does not hold what it would sign with makes no backup that looks
// like one.
func TestNoBackupOfWhatIsNotHeld(t *testing.T) {
	d := newDeposit(t, false)
	to, _ := cheap(t, backupPass)
	for what, f := range map[string]inForce{
		"an epoch it has no share of": {Epoch: 5, Height: 9, Shares: []keystore.ShareID{{Key: sol.ID, Epoch: 5, Try: 1}}},
		"no seat":                     {Epoch: 5, Height: 9},
	} {
		ks, _, err := openKeystore(d.dirs[0], []byte("p"), nil)
		if err := errors.Join(err, ks.Put(inForceName, ledger.Marshal(f)), ks.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Backup(d.dirs[0], filepath.Join(t.TempDir(), "b"), []byte("p"), to); !errors.Is(err, ErrNotHeld) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
