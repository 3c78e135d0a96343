package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// checkCommittee: epochs grow and each was put in force by its own certificate;
// whatever is being prepared has the number after all others; keys sign with
// what the epoch in force says; nobody is where he cannot be.
func (s *State) checkCommittee() error {
	for i, e := range s.Epochs {
		if err := e.Validate(s.Params.AllowNoFaultTolerance); err != nil {
			return fmt.Errorf("epoch %d: %w", e.Number, err)
		}
		if i == 0 {
			continue
		}
		if e.Number <= s.Epochs[i-1].Number || !s.Infos.has(e.Number) {
			return fmt.Errorf("epoch %d after %d, known: %v", e.Number, s.Epochs[i-1].Number, s.Infos.has(e.Number))
		}
		if a := s.Flips[i-1].Approval; a.Epoch != s.Epochs[i-1].Number || a.Members != e.MembersHash() {
			return fmt.Errorf("epoch %d came into force by a certificate of epoch %d for other members", e.Number, a.Epoch)
		}
	}
	e := s.Epoch()
	if len(s.Flips) != len(s.Epochs)-1 || s.Infos.len() != len(s.Epochs)-1 {
		return fmt.Errorf("%d epochs, %d flips, %d known", len(s.Epochs), len(s.Flips), s.Infos.len())
	}
	if last := s.LastEpoch; last < e.Number || s.Next != nil && (s.Next.Epoch.Number != last || last == e.Number) {
		return fmt.Errorf("epoch %d in force, %d the highest number, one is prepared: %v", e.Number, last, s.Next != nil)
	}
	if err := s.checkGenerations(); err != nil {
		return err
	}
	if err := s.checkNext(); err != nil {
		return fmt.Errorf("the next epoch: %w", err)
	}
	fresh := 0
	for id := range s.Quarantine.all() {
		if !slices.ContainsFunc(e.Members, func(m Member) bool { return m.ID.String() == id }) {
			return fmt.Errorf("%s is in quarantine and no member", id)
		}
		fresh++
	}
	if e.Number > 0 && e.N()-fresh+min(fresh, 1) < e.M {
		return fmt.Errorf("%d of %d members are in quarantine, m = %d", fresh, e.N(), e.M)
	}
	if len(s.Changes) > maxQueued+1 || len(s.Dropped) > maxDropped {
		return fmt.Errorf("%d changes wait, %d epochs were dropped", len(s.Changes), len(s.Dropped))
	}
	for _, c := range s.Changes {
		if (c.In != nil) != (c.Kind == ChangeAdmit || c.Kind == ChangeReplace) || c.In != nil && e.Has(c.In.ID) {
			return fmt.Errorf("a change to %s with %v", c.Kind, c.In)
		}
	}
	return nil
}

// checkGenerations: keys sign with the KeyShares of the epoch in force, which
// nobody has wiped, and no open attempt names any that are not of an epoch.
func (s *State) checkGenerations() error {
	e := s.Epoch()
	info := s.Infos.at(e.Number)
	if e.Number > 0 && len(info.Keys) != s.Keys.len() {
		return fmt.Errorf("epoch %d signs with %d keys of %d", e.Number, len(info.Keys), s.Keys.len())
	}
	for _, g := range info.Keys {
		if k := s.Keys.at(g.Key); k.Epoch != g.Epoch || k.Try != g.Try {
			return fmt.Errorf("key %s signs with epoch %d try %d, epoch %d says %s", k.ID, k.Epoch, k.Try, e.Number, g)
		}
		if w := s.Wiped.at(g.String()); len(w) > 0 {
			return fmt.Errorf("%d members wiped %s, which signs", len(w), g)
		}
	}
	for _, id := range info.Tests {
		if b, ok := s.Batches.get(id); !ok || b.Done || b.Kind != BatchTest {
			return fmt.Errorf("test batch %d of epoch %d is not open", id, e.Number)
		}
	}
	if (info.Proven != 0) == (len(info.Tests) > 0) && e.Number > 0 {
		return fmt.Errorf("epoch %d was proven at height %d and waits for %d tests", e.Number, info.Proven, len(info.Tests))
	}
	for id := range s.Live.all() {
		b := s.Batches.at(id)
		if _, past := s.epochNumber(b.Newest().Epoch); !past && (s.Next == nil || b.Newest().Epoch != s.Next.Epoch.Number) {
			return fmt.Errorf("batch %d is open under epoch %d, which is none", id, b.Newest().Epoch)
		}
	}
	return nil
}

// checkNext: the epoch being prepared holds every key, within its tries, and is
// opened only when every member is ready for every key.
func (s *State) checkNext() error {
	n := s.Next
	if n == nil {
		if s.Opening != nil {
			return errors.New("opened, and not prepared")
		}
		return nil
	}
	if err := n.Epoch.Validate(s.Params.AllowNoFaultTolerance); err != nil {
		return err
	}
	if (n.Kind == NextKeygen) != (n.Change == nil) || n.Kind != NextKeygen && len(n.Keys) != s.Keys.len() {
		return fmt.Errorf("kind %d with %d keys of %d, for a change: %v", n.Kind, len(n.Keys), s.Keys.len(), n.Change != nil)
	}
	for i, k := range n.Keys {
		switch {
		case i > 0 && n.Keys[i-1].Key >= k.Key:
			return errors.New("keys not sorted, or doubled")
		case n.Kind == NextReshare && k.Try > MaxReshareTries:
			return fmt.Errorf("key %s: try %d of %d", k.Key, k.Try, MaxReshareTries)
		case n.Kind != NextKeygen && len(k.Pub) > 0 && !bytes.Equal(k.Pub, s.Keys.at(k.Key).Pub):
			return fmt.Errorf("key %s would change", k.Key)
		}
		for _, m := range k.Ready {
			if !n.Epoch.Has(m) {
				return fmt.Errorf("key %s: %s is ready and no member", k.Key, m)
			}
		}
		if b := s.Batches.at(k.Batch); n.Kind == NextReshare && !b.Done {
			d := b.Newest().Dealers
			g, _ := s.epochNumber(s.Keys.at(k.Key).Epoch)
			if len(d) != g.M || n.Change.Kind != ChangeLeave && slices.Contains(d, n.Change.Out) {
				return fmt.Errorf("key %s: dealers %v of an epoch with m = %d", k.Key, d, g.M)
			}
		}
	}
	if o := s.Opening; o != nil && (o.Epoch.MembersHash() != n.Epoch.MembersHash() || n.Kind != NextRollback && !s.nextReady()) {
		return fmt.Errorf("epoch %d was opened before its time", o.Epoch.Number)
	}
	return nil
}
