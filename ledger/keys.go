package ledger

import (
	"crypto/sha256"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
)

// keygenMillis is the deadline of one keygen attempt: with three members
// computing on one core each it takes about one minute.
const keygenMillis = 600_000

// planEpoch moves the committee on: the first keys, quarantines, deadlines, and
// the next change.
func (x *execution) planEpoch() {
	s := x.s
	if s.Epoch().Number == 0 {
		x.planFirstEpoch()
		return
	}
	x.endQuarantines()
	x.lateReshare()
	if x.s.Next == nil && !x.s.Catching {
		x.planChange()
	}
}

// planFirstEpoch begins the first epoch with keys as soon as every genesis member
// has attested its clock (spec: signing §6).
func (x *execution) planFirstEpoch() {
	s := x.s
	if s.Next != nil {
		return
	}
	for _, m := range s.Epoch().Members {
		if s.Seats.at(m.ID.String()).Millis == 0 {
			return
		}
	}
	next := s.Epoch()
	next.Number = 1
	s.LastEpoch = 1
	s.Next = &NextEpoch{Epoch: next, Keys: []NextKey{{Key: KeyECDSA1}, {Key: KeyEd255191}}}
	for i := range s.Next.Keys {
		x.planKeygen(i)
	}
}

// planKeygen plans the next try of a key's generation by all members.
func (x *execution) planKeygen(i int) {
	x.planTry(i, BatchKeygen, Attempt{Deadline: x.s.Millis + keygenMillis})
}

// nextTry plans another try of a key that is being made or reshared.
func (x *execution) nextTry(i int) {
	if x.s.Next.Kind == NextReshare {
		x.planReshare(i)
		return
	}
	x.planKeygen(i)
}

// planTry plans a key's next session by all members of the next epoch. What an
// earlier try left behind is forgotten here; its staged KeyShares are wiped
// under a certificate alone.
func (x *execution) planTry(i int, kind BatchKind, a Attempt) {
	s := x.s
	k, e := s.Next.Keys[i], s.Next.Epoch
	b, ok := s.Batches.get(k.Batch)
	if !ok {
		b = Batch{ID: s.NextBatch, Kind: kind, Key: k.Key}
		s.NextBatch++
	}
	for _, t := range k.Tests {
		s.closeBatch(t)
	}
	k = NextKey{Key: k.Key, Batch: b.ID, Epoch: e.Number, Try: k.Try + 1, Blamed: k.Blamed}
	s.setNextKey(i, k)
	b.Attempts, b.Done = nil, false
	a.K, a.Kind, a.Epoch, a.M, a.Try, a.Roster = k.Try, AttemptFirst, e.Number, e.M, k.Try, memberIDs(e)
	x.openAttempt(b, a)
}

// planTests plans test signatures of a staged key so that every member signs in
// at least one.
func (x *execution) planTests(i int) {
	s := x.s
	k := s.Next.Keys[i]
	k.Tests, k.Tested = nil, nil
	old := s.Epoch()
	fresh := func(m MemberID) bool { return s.Next.Kind == NextReshare && (!old.Has(m) || s.Quarantined(m)) }
	for _, roster := range testRosters(s.Next.Epoch, fresh) {
		id := x.planTest(k.generation(s.Next), s.Next.Epoch, roster)
		k.Tests = append(k.Tests, id)
		k.Tested = append(k.Tested, TestSeen{Batch: id})
	}
	s.setNextKey(i, k)
}

// planActiveTests plans them once more after the flip, with the activated
// KeyShares: the proof that older generations may be wiped.
func (x *execution) planActiveTests() {
	e := x.s.Epoch()
	info := x.s.Infos.at(e.Number)
	for _, g := range info.Keys {
		for _, roster := range testRosters(e, x.s.Quarantined) {
			info.Tests = append(info.Tests, x.planTest(g, e, roster))
		}
	}
	x.s.Infos.put(e.Number, info)
}

func (x *execution) planTest(g Generation, e Epoch, roster []MemberID) uint64 {
	s := x.s
	b := Batch{ID: s.NextBatch, Kind: BatchTest, Key: g.Key}
	s.NextBatch++
	// No chain can parse this as a transaction: the domain is inside the hash.
	b.Digest = sha256.Sum256(append([]byte("coffer/test-signature/1"), Marshal([]any{s.Cluster, g.Key, e.Number, s.Head, b.ID})...))
	x.openAttempt(b, Attempt{Kind: AttemptFirst, Epoch: g.Epoch, M: e.M, Try: g.Try, Roster: roster})
	return b.ID
}

// testRosters are committees of m that together hold every member, none of them
// with two that are fresh: whoever is in quarantine signs with m−1 that are not.
func testRosters(e Epoch, fresh func(MemberID) bool) [][]MemberID {
	var old, new []MemberID
	for _, m := range e.Members {
		if fresh(m.ID) {
			new = append(new, m.ID)
		} else {
			old = append(old, m.ID)
		}
	}
	var rs [][]MemberID
	covered := 0 // of old
	for _, m := range new {
		start := min(covered, max(len(old)-(e.M-1), 0))
		rs = append(rs, withMember(old[start:min(start+e.M-1, len(old))], m))
		covered = max(covered, start+e.M-1)
	}
	for ; covered < len(old); covered += e.M {
		start := max(min(covered, len(old)-e.M), 0)
		rs = append(rs, old[start:min(start+e.M, len(old))])
	}
	for i, r := range rs { // fewer than m−1 are old enough: only where all are fresh
		rs[i] = slices.Clone(r)
		for _, m := range memberIDs(e) {
			if len(rs[i]) < e.M {
				rs[i] = withMember(rs[i], m)
			}
		}
	}
	return rs
}

func memberIDs(e Epoch) []MemberID {
	ids := make([]MemberID, e.N())
	for i, m := range e.Members {
		ids[i] = m.ID
	}
	return ids
}

func (s *State) setNextKey(i int, k NextKey) {
	n := *s.Next
	n.Keys = slices.Clone(n.Keys)
	n.Keys[i] = k
	s.Next = &n
}

// nextReady: every member holds every key and has attested every test.
func (s *State) nextReady() bool {
	for _, k := range s.Next.Keys {
		if len(k.Ready) != s.Next.Epoch.N() || len(k.Tests) == 0 {
			return false
		}
		for _, t := range k.Tested {
			if len(t.Members) != s.Next.Epoch.N() {
				return false
			}
		}
	}
	return true
}

// Vaults (spec: signing §4).
var vaults = []address.Path{
	{Chain: Bitcoin, Role: address.RoleMinter},
	{Chain: Bitcoin, Role: address.RolePool},
	{Chain: Ethereum, Role: address.RoleHot},
	{Chain: Ethereum, Role: address.RoleGas},
}

// findVaults notes where the vaults are watched: deriving an address takes longer
// than most commands. Derived, in no snapshot.
func (s *State) findVaults() {
	s.vaultKeys = map[string]string{}
	for _, p := range vaults {
		if _, ok := s.Genesis.Chain(p.Chain); ok && s.Keys.has(KeyECDSA1) {
			s.vaultKeys[p.Chain+"/"+p.Role] = p.Chain + "/" + s.derive(p).Address
		}
	}
}

func (x *execution) watchVaults() {
	x.s.findVaults()
	for _, p := range vaults {
		if _, ok := x.s.Genesis.Chain(p.Chain); ok {
			w := x.s.derive(p)
			w.Purpose, w.From = PurposeVault, x.s.Tips.at(p.Chain).Height
			x.s.watch(w)
			if p.Chain == Ethereum {
				x.s.Senders.put(w.Address, Sender{Address: w.Address})
			}
		}
	}
}

// watch registers an address of ours. Followers remember by its number how far
// they have looked, so a number is never given twice.
func (s *State) watch(w Watch) {
	if !s.Watched.has(w.Chain + "/" + w.Address) {
		s.Watched.put(w)
	}
}

// watchAccount registers an account's deposit and repay addresses. It reports
// whether they were before.
func (x *execution) watchAccount(id AccountID) (before bool) {
	raw := must(hexBytes16(id))
	for _, c := range x.s.Genesis.Chains {
		for _, purpose := range []Purpose{PurposeSupply, PurposeRepay} {
			w := x.s.derive(accountPath(raw, c.Name, purpose))
			if x.s.Watched.has(c.Name + "/" + w.Address) {
				before = true
				continue
			}
			w.Account, w.Purpose, w.From = id, purpose, x.s.Tips.at(c.Name).Height
			x.s.watch(w)
		}
	}
	return before
}

// derive is the address of ours at a path of the ECDSA key.
func (s *State) derive(p address.Path) Watch {
	k := s.Keys.at(KeyECDSA1)
	c := must(address.Derive(address.KeyECDSA, k.ID, k.Pub, p))
	w := Watch{Chain: p.Chain, Path: c.Path, Key: k.ID, Pub: c.Pub}
	chain, _ := s.Genesis.Chain(p.Chain)
	switch p.Chain {
	case Bitcoin:
		w.Address = must(address.P2WPKH(must(bitcoinNetwork(chain)), c.Pub))
	case Ethereum:
		w.Address = address.EthereumAddress(must(address.EthereumOf(c.Pub)))
	}
	return w
}

func bitcoinNetwork(c ChainParam) (string, error) {
	return address.BitcoinNetwork(c.CAIP2[len("bip122:"):])
}

// Vault returns the vault of a role, once there are keys.
func (s *State) Vault(chain, role string) (Watch, bool) {
	key, ok := s.vaultKeys[chain+"/"+role]
	if !ok {
		return Watch{}, false
	}
	return s.Watched.get(key)
}

// AddressOf returns an account's address on a chain for a purpose.
func (s *State) AddressOf(id AccountID, chain string, purpose Purpose) (Watch, bool) {
	raw, err := hexBytes16(id)
	if err != nil || !s.Keys.has(KeyECDSA1) {
		return Watch{}, false
	}
	w, ok := s.Watched.get(chain + "/" + s.derive(accountPath(raw, chain, purpose)).Address)
	return w, ok
}
