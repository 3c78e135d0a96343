package ledger

import (
	"crypto/sha256"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
)

// keygenMillis is the deadline of one keygen attempt: with three members
// computing on one core each it takes about one minute.
const keygenMillis = 600_000

// planEpoch begins the first epoch with keys as soon as every genesis member
// has attested its clock (spec: signing §6).
func (x *execution) planEpoch() {
	s := x.s
	if s.Epoch().Number != 0 || s.Next != nil {
		return
	}
	for _, m := range s.Epoch().Members {
		if s.Seats.at(m.ID.String()).Millis == 0 {
			return
		}
	}
	next := s.Epoch()
	next.Number = 1
	s.Next = &NextEpoch{Epoch: next, Keys: []NextKey{{Key: KeyECDSA1}, {Key: KeyEd255191}}}
	for i := range s.Next.Keys {
		x.planKeygen(i)
	}
}

// planKeygen plans the next try of a key's generation by all members. What an
// earlier try left behind is forgotten here; its staged KeyShares are wiped
// under a certificate alone.
func (x *execution) planKeygen(i int) {
	s := x.s
	k := s.Next.Keys[i]
	b, ok := s.Batches.get(k.Batch)
	if !ok {
		b = Batch{ID: s.NextBatch, Kind: BatchKeygen, Key: k.Key}
		s.NextBatch++
	}
	for _, t := range k.Tests {
		s.closeBatch(t)
	}
	k = NextKey{Key: k.Key, Batch: b.ID, Try: k.Try + 1}
	s.setNextKey(i, k)
	b.Attempts, b.Done = nil, false
	x.openAttempt(b, Attempt{
		K: k.Try, Kind: AttemptFirst, Epoch: s.Next.Epoch.Number, M: s.Next.Epoch.M, Try: k.Try,
		Roster: memberIDs(s.Next.Epoch), Deadline: s.Millis + keygenMillis,
	})
}

// planTests plans test signatures of a staged key so that every member signs in
// at least one.
func (x *execution) planTests(i int) {
	s := x.s
	k := s.Next.Keys[i]
	k.Tests, k.Tested = nil, nil
	for _, roster := range testRosters(s.Next.Epoch) {
		id := x.planTest(k.Key, s.Next.Epoch, k.Try, roster)
		k.Tests = append(k.Tests, id)
		k.Tested = append(k.Tested, TestSeen{Batch: id})
	}
	s.setNextKey(i, k)
}

// planActiveTests plans them once more after the flip, with the activated
// KeyShares: the proof that older generations may be wiped.
func (x *execution) planActiveTests() {
	for _, k := range x.s.Keys.all() {
		for _, roster := range testRosters(x.s.Epoch()) {
			x.planTest(k.ID, x.s.Epoch(), k.Try, roster)
		}
	}
}

func (x *execution) planTest(key string, e Epoch, try uint64, roster []MemberID) uint64 {
	s := x.s
	b := Batch{ID: s.NextBatch, Kind: BatchTest, Key: key}
	s.NextBatch++
	// No chain can parse this as a transaction: the domain is inside the hash.
	b.Digest = sha256.Sum256(append([]byte("coffer/test-signature/1"), Marshal([]any{s.Cluster, key, e.Number, s.Head, b.ID})...))
	x.openAttempt(b, Attempt{Kind: AttemptFirst, Epoch: e.Number, M: e.M, Try: try, Roster: roster})
	return b.ID
}

// testRosters are committees of m that together hold every member.
func testRosters(e Epoch) [][]MemberID {
	ids := memberIDs(e)
	var rs [][]MemberID
	for i := 0; i < len(ids); i += e.M {
		start := min(i, len(ids)-e.M)
		rs = append(rs, ids[start:start+e.M])
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
