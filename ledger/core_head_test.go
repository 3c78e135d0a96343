package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// headOf is the formula of spec consensus R2, written down once more:
// "H_i = SHA256("coffer/head/1" || H_{i-1} || i || SHA256(command) || SHA256(code, effects) || S_i)".
func headOf(prev Hash, height uint64, command []byte, code Code, events []Event, root Hash) Hash {
	var b []byte
	b = append(b, "coffer/head/1"...)
	b = append(b, prev[:]...)
	b = binary.BigEndian.AppendUint64(b, height)
	cmd := sha256.Sum256(command)
	b = append(b, cmd[:]...)
	effects := sha256.Sum256(Marshal([]any{code, events}))
	b = append(b, effects[:]...)
	b = append(b, root[:]...)
	return sha256.Sum256(b)
}

// "H_0 = genesis hash."
func TestHeadBeginsAtGenesis(t *testing.T) {
	c := newCluster(t)
	if want := Hash(sha256.Sum256(Marshal(c.s.Genesis))); c.s.Head != want || c.s.Cluster != want {
		t.Errorf("H_0 = %s, cluster %s, want %s", c.s.Head, c.s.Cluster, want)
	}
	other := c.s.Genesis
	other.Millis++
	if other.Hash() == c.s.Genesis.Hash() {
		t.Error("two genesis files with one hash")
	}
}

// Every command folds, refused ones too, and with another code or effect the
// head is another.
func TestHeadChain(t *testing.T) {
	c, _, borrower := lent(t)
	clock := Marshal(Command{Attestation: NewAttestation(c.keys[0], c.s.Cluster, c.seq+1, KindClock, Clock{Millis: c.s.Millis + 100})})
	events := 0
	for i, cmd := range [][]byte{
		clock,
		clock, // BAD_NONCE now
		[]byte("noise"),
		Marshal(Command{Intent: borrower.sign(c.text(borrower, c.borrowUSDT("20000000000")))}),
		Marshal(Command{Intent: borrower.sign(c.text(borrower, c.borrowUSDT("25000000000"), func(a *address.Command) { a.Nonce++ }))}),
	} {
		prev, height := c.s.Head, c.s.Height
		code := c.raw(cmd)
		if want := []Code{OK, BadNonce, Malformed, OK, HealthFactor}[i]; code != want {
			t.Fatalf("command %d: %s, want %s", i, code, want)
		}
		if c.s.Height != height+1 || c.last.Header.Prev != prev || c.last.Header.Height != c.s.Height {
			t.Errorf("command %d: header %+v", i, c.last.Header)
		}
		want := headOf(prev, height+1, cmd, code, c.last.Events, Hash{})
		if c.s.Head != want || c.last.Header.Head() != want {
			t.Errorf("command %d: head %s, formula says %s", i, c.s.Head, want)
		}
		if headOf(prev, height+1, cmd, "OTHER", c.last.Events, Hash{}) == want || headOf(prev, height+1, cmd, code, append(c.last.Events, Event{}), Hash{}) == want {
			t.Error("code or effects are not under the head")
		}
		events += len(c.last.Events)
	}
	if events == 0 {
		t.Error("no command had an effect: the test proves nothing about them")
	}
}

// "S_i = 32 zero bytes unless i is a multiple of 4096 or the command opened an
// epoch; there it is the root over all state sections."
func TestRoots(t *testing.T) {
	c := newCluster(t)
	c.tick(1000)
	c.tick(1000)
	var opened uint64
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		c.all(KindShareReady, c.shareReady(key))
	}
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		for _, id := range c.nextKey(key).Tests {
			sig := TestSig{Batch: id, Signature: c.sign(key, c.s.Batches.at(id).Digest)}
			for i := range c.keys {
				c.say(i, KindTestSig, sig)
				switch o := c.s.Opening; {
				case o == nil && c.last.Header.Root != Hash{}:
					t.Fatalf("height %d folds a root", c.s.Height)
				case o != nil && opened == 0:
					opened = c.s.Height
					if o.Height != opened || o.Root != c.last.Header.Root || o.Head != c.s.Head {
						t.Fatalf("opening %+v at height %d with root %s", o, opened, c.last.Header.Root)
					}
				}
			}
		}
	}
	if opened == 0 || c.s.RootHeight != opened || c.s.Root == (Hash{}) {
		t.Fatalf("opened at %d, root of %d", opened, c.s.RootHeight)
	}
	c.flip()
	for c.s.Height < RootInterval-1 {
		if c.raw([]byte("noise")); c.last.Header.Root != (Hash{}) {
			t.Fatalf("height %d folds a root", c.s.Height)
		}
	}
	// What the root hashes: the state after the command, with the head of the
	// height before, since the head covers the root.
	v := c.s.View()
	v.Height++
	want := rootOf(t, v)
	prev := c.s.Head
	if code := c.raw([]byte("noise")); code != Malformed {
		t.Fatal(code)
	}
	if c.s.Root != want || c.s.RootHeight != RootInterval || c.last.Header.Root != want {
		t.Errorf("root %s of height %d, want %s", c.s.Root, c.s.RootHeight, want)
	}
	if c.s.Head != headOf(prev, RootInterval, []byte("noise"), Malformed, c.last.Events, want) {
		t.Error("the head does not cover the root")
	}
	if c.raw([]byte("noise")); c.last.Header.Root != (Hash{}) || c.s.RootHeight != RootInterval {
		t.Error("the height after folds a root too")
	}
}

// A reader's view stays as it is while the ledger goes on.
func TestViewsStay(t *testing.T) {
	c, _, borrower := lent(t)
	v := c.s.Frozen()
	before := Marshal(v)
	if code := c.ask(borrower, c.borrowUSDT("20000000000")); code != OK {
		t.Fatal(code)
	}
	c.tick(30_000)
	if string(Marshal(v)) != string(before) {
		t.Error("a frozen view changed")
	}
	if string(Marshal(c.s)) == string(before) {
		t.Error("nothing happened: the test proves nothing")
	}
}

// DecodeState is ReadState for the whole in one piece.
func DecodeState(b []byte) (*State, error) {
	s := new(State)
	err := Unmarshal(b, s)
	if err == nil {
		err = s.admit()
	}
	if err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	return s, nil
}

// A snapshot that does not hang together is refused.
func TestDecodeStateRefuses(t *testing.T) {
	c, _, borrower := lent(t)
	c.ask(borrower, c.borrowUSDT("20000000000"))
	for name, spoil := range map[string]func(*State){
		"another genesis": func(s *State) { s.Genesis.Name = "other" },
		"another cluster": func(s *State) { s.Cluster[0]++ },
		"no epoch":        func(s *State) { s.Epochs = nil },
		"shares from nowhere": func(s *State) {
			p := s.Pools.at("btc")
			p.SupplyShares = n("1")
			s.Pools.put("btc", p)
		},
		"an outflow not queued": func(s *State) { s.Queue = table[uint64, uint64]{} },
	} {
		v := c.s.View()
		spoil(v)
		_, err := DecodeState(Marshal(v))
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := DecodeState(append(Marshal(c.s), 0)); err == nil {
		t.Error("a trailing byte: accepted")
	}
	if _, err := DecodeState(Marshal(c.s)); err != nil {
		t.Errorf("the state itself: %v", err)
	}
}
