package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// The simulated network. Periods are short against a real network's, so that
// deadlines, expiry and finality all happen many times within one run.
const (
	startMillis = 1_760_000_000_000

	queueSeconds  = 240
	attemptMillis = 15_000

	bitcoinCAIP2  = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328" // regtest
	ethereumCAIP2 = "eip155:1337"
	token         = "0x5FbDB2315678afecb367f032d93F642f64180aa3"

	bitcoinFinal = 6
	// Reorganisations stay below finality, and often exceed the depth at which a
	// deposit counts (spec: outflows §8.3).
	maxBitcoinReorg  = 5
	blockSubsidy     = 320_000_000 // sats: most deposits count at two confirmations
	ethereumLag      = 6           // blocks between head and finality
	maxEthereumReorg = 3
	sweepDepth       = 4

	satPerKVB = 2_000
	gwei      = 1_000_000_000

	minUSDT   = 1_000_000
	poolSats  = 900_000 // float of the pool vault
	boostSats = 20_000  // smallest withdrawal

	minSats = 200_000 // below: suspense

	ether  = 1_000_000_000_000_000_000
	minWei = ether / 100
)

// pools in the order of the ledger's.
var pools = []string{"btc", "eth", "usdt.eth"}

var floatWei = fixed.MustParse("10000000000000000000")

// secret is 32 bytes that only this seed has.
func (s *sim) secret(what string, n uint64) [32]byte {
	b := binary.BigEndian.AppendUint64([]byte("coffer sim "+what+" "), s.cfg.Seed)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, n))
}

// spares are nodes beside the genesis members, that votes may let in.
const spares = 3

// found makes genesis, members, chains and clients.
func (s *sim) found() {
	n, f := 4, 1
	switch {
	case s.cfg.Seed%16 == 15:
		n, f = 7, 2
	case s.cfg.Seed%4 == 3:
		n = 5
	}
	s.rep.Members = n
	var ms []ledger.Member
	for i := range n + spares {
		seed := s.secret("member", uint64(i))
		m := &member{s: s, i: i, key: ed25519.NewKeyFromSeed(seed[:])}
		m.id = ledger.MemberID(m.key.Public().(ed25519.PublicKey))
		m.skew = int64(s.between(-900, 900))
		s.members = append(s.members, m)
		if i < n {
			ms = append(ms, m.line())
		}
	}
	if s.cfg.Seed%3 != 0 {
		for _, i := range s.rng.Perm(n)[:f] {
			s.members[i].liar = true
		}
	}
	slices.SortFunc(ms, func(a, b ledger.Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	e := ledger.Epoch{Members: ms, F: f, M: 3}
	e.FactQuorum = e.Q()
	p := ledger.DefaultParams()
	p.BoostSeconds = 30
	p.AdmitSeconds, p.SeatSeconds, p.RollbackSeconds, p.ReshareSeconds, p.TrySeconds = 10, 30, 60, 120, 45
	p.AttemptMillis, p.QueueSeconds, p.ExpirySeconds = attemptMillis, queueSeconds, 120
	p.LiftSeconds, p.SetSeconds, p.LowerSeconds, p.StepSeconds, p.SocialiseSeconds, p.ProposalSeconds = 10, 20, 40, 20, 20, 120
	usdt := ledger.PoolParam{Asset: "usdt.eth", Base: 200, Opt: 9200, S1: 700, S2: 30_000, RF: 1000, LTV: 6500, LT: 7400, Bonus: 10_500, LiqFee: 1000}
	usdt.MinSupply, usdt.MinBorrow, usdt.MinWithdraw = fixed.New(20*minUSDT), fixed.New(20*minUSDT), fixed.New(20*minUSDT)
	btc := ledger.PoolParam{Asset: "btc", Opt: 4500, S1: 400, S2: 30_000, RF: 2000, LTV: 7500, LT: 8000, Bonus: 10_500, LiqFee: 1000}
	btc.MinSupply, btc.MinBorrow, btc.MinWithdraw = fixed.New(minSats), fixed.New(minSats), fixed.New(boostSats)
	eth := btc
	eth.Asset, eth.Opt, eth.S1, eth.S2, eth.RF = "eth", 8000, 380, 8000, 1500
	eth.MinSupply, eth.MinBorrow, eth.MinWithdraw = fixed.New(minWei), fixed.New(minWei), fixed.New(minWei)
	if s.cfg.Seed%2 == 0 { // all that is there may leave in an hour, and they bind now and then
		usdt.CapHourBps, usdt.CapDayBps, btc.CapHourBps, btc.CapDayBps = 10_000, 20_000, 10_000, 20_000
		eth.CapHourBps, eth.CapDayBps = 10_000, 20_000
	}
	s.genesis = ledger.Genesis{
		Version: 1, Name: "sim", Brand: "coffer.sim", Millis: startMillis, Epoch: e,
		Chains: []ledger.ChainParam{
			{Name: ledger.Bitcoin, CAIP2: bitcoinCAIP2, Final: bitcoinFinal, MinRate: satPerKVB, MaxRate: 10 * satPerKVB, BlockSubsidy: blockSubsidy, Float: fixed.New(poolSats)},
			{Name: ledger.Ethereum, CAIP2: ethereumCAIP2, Sweep: sweepDepth, MinRate: gwei, MaxRate: 20 * gwei, MinTip: gwei, Float: floatWei},
		},
		Assets: []ledger.AssetParam{
			{ID: "btc", Symbol: "BTC", Decimals: 8, Chain: ledger.Bitcoin},
			{ID: "eth", Symbol: "ETH", Decimals: 18, Chain: ledger.Ethereum, Gas: 21_000},
			{ID: "usdt.eth", Symbol: "USDT", Decimals: 6, Chain: ledger.Ethereum, Token: token, Gas: 100_000, Stable: true},
		},
		Pools:  []ledger.PoolParam{btc, eth, usdt},
		Params: p,
	}
	s.reference = must(ledger.NewState(s.genesis))
	for _, c := range s.genesis.Chains {
		f := chaintest.NewFake(chaintest.FakeConfig{Chain: c, Assets: s.genesis.Assets, Lag: ethereumLag})
		if c.Name == ledger.Bitcoin {
			s.btc = f
		} else {
			s.eth = f
		}
	}
	s.dealer = newDealer(s)
	s.world.found(s)
	for _, m := range s.members {
		m.disk = newDisk()
		m.boot(must(ledger.NewState(s.genesis)))
	}
	s.log.leader, s.log.since = s.rng.IntN(n), map[uint64]uint64{}
	s.auditor = newAuditor(s)
	s.foundClients()
}

// chain is the one world of a chain's name.
func (s *sim) chain(name string) *chaintest.Fake {
	if name == ledger.Bitcoin {
		return s.btc
	}
	return s.eth
}
