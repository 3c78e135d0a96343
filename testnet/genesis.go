package testnet

import (
	"cmp"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node"
)

// Network parameters that differ from the defaults (spec: chains, "The testnet's network").
const (
	clusterName = "coffer-testnet"
	brand       = "coffer.testnet"

	bitcoinCAIP2  = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328" // regtest
	bitcoinFinal  = 6
	satPerKVBMin  = 1_500
	satPerKVBMax  = 20_000
	bitcoinReward = 320_000_000 // sats; a constant of the confirmation rule, not the chain's subsidy

	ethereumCAIP2 = "eip155:1337"
	gwei          = 1_000_000_000
	sweepDepth    = 2
	tokenGas      = 100_000
	poolCoins     = 4                      // the float of the pool vault comes in
	poolCoinSats  = 1_250_000              // each
	floatWei      = "10000000000000000000" // on each of eth/hot and eth/gas

	bitcoinEvery = 2 * time.Second
	feeEvery     = 5 * time.Second
)

// genesisOf is the network's genesis: the worked example's pools on the chains as they stand now.
func genesisOf(o Options, members []ledger.Member, bitcoinHeight, ethereumHeight uint64, token string, now time.Time) ledger.Genesis {
	slices.SortFunc(members, func(a, b ledger.Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	e := ledger.Epoch{Members: members, F: o.F, M: o.M}
	e.FactQuorum = e.Q()
	p := ledger.DefaultParams()
	p.AllowNoFaultTolerance = o.NoFaultTolerance
	// A vote's effect should be seen before the coffee is cold; in earnest users
	// need days to leave.
	p.BoostSeconds = 10
	p.AdmitSeconds, p.SeatSeconds, p.RollbackSeconds = 5, 30, 120
	p.LiftSeconds, p.SetSeconds, p.LowerSeconds, p.StepSeconds, p.SocialiseSeconds, p.ProposalSeconds = 5, 10, 20, 10, 10, 3_600
	usdt := pool("usdt.eth", 200, 9200, 700, 30_000, 1000, 6500, 7400)
	usdt.MinSupply, usdt.MinBorrow, usdt.MinWithdraw = fixed.New(1_000_000), fixed.New(1_000_000), fixed.New(1_000_000)
	btc := pool("btc", 0, 4500, 400, 30_000, 2000, 7500, 8000)
	btc.MinSupply, btc.MinBorrow, btc.MinWithdraw = fixed.New(5_100), fixed.New(5_100), fixed.New(5_000)
	eth := pool("eth", 0, 8000, 400, 30_000, 1500, 7500, 8000)
	eth.MinSupply, eth.MinBorrow, eth.MinWithdraw = fixed.New(gwei*1_000_000), fixed.New(gwei*1_000_000), fixed.New(gwei*1_000_000) // 0.001
	// A demo deposits a coin and takes most of it away again within minutes, and a
	// load test moves all there is many times an hour: no cap that protects
	// anything would let them. The way through the buckets is the same.
	for _, p := range []*ledger.PoolParam{&usdt, &btc, &eth} {
		p.CapHourBps, p.CapDayBps = 500_000, 1_000_000
	}
	g := ledger.Genesis{
		Version: 1, Name: clusterName, Brand: brand, Millis: uint64(now.UnixMilli()), Epoch: e,
		Chains: []ledger.ChainParam{
			{Name: ledger.Bitcoin, CAIP2: bitcoinCAIP2, Start: bitcoinHeight, Final: bitcoinFinal, MinRate: satPerKVBMin, MaxRate: satPerKVBMax, BlockSubsidy: bitcoinReward, Float: fixed.New(poolCoins * poolCoinSats)},
			{Name: ledger.Ethereum, CAIP2: ethereumCAIP2, Start: ethereumHeight, Sweep: sweepDepth, MinRate: gwei, MaxRate: 20 * gwei, MinTip: gwei, Float: fixed.MustParse(floatWei)},
		},
		Wallets: genesisWallets(),
		Assets: []ledger.AssetParam{
			{ID: "btc", Symbol: "BTC", Decimals: 8, Chain: ledger.Bitcoin},
			{ID: "eth", Symbol: "ETH", Decimals: 18, Chain: ledger.Ethereum, Gas: 21_000},
			{ID: "usdt.eth", Symbol: "USDT", Decimals: 6, Chain: ledger.Ethereum, Token: token, Gas: tokenGas, Stable: true},
		},
		Pools:  []ledger.PoolParam{btc, eth, usdt},
		Params: p,
	}
	slices.SortFunc(g.Pools, func(a, b ledger.PoolParam) int { return cmp.Compare(a.Asset, b.Asset) })
	return g
}

// genesisWallets: Solana's devnet, and Internet Computer identities of a test.
func genesisWallets() []string {
	return []string{"icp:test", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"}
}

// pool has the curve and ratios of spec lending §13.
func pool(asset string, base, opt, s1, s2, rf, ltv, lt uint64) ledger.PoolParam {
	return ledger.PoolParam{
		Asset: asset, Base: base, Opt: opt, S1: s1, S2: s2, RF: rf, LTV: ltv, LT: lt, Bonus: 10_500, LiqFee: 1000,
	}
}

// nodeConfig is what differs from node to node.
func nodeConfig(dir string, peer, api, operator int, btc BitcoinRPC, ethURL, pricesURL string) node.Config {
	c := node.Config{
		Dir: dir, Listen: peerAddr(loopback, peer), API: Loopback(api), Operator: Loopback(operator),
		Chains: []node.ChainConfig{
			{Name: ledger.Bitcoin, URL: btc.URL, User: btc.User, Password: btc.Password},
			{Name: ledger.Ethereum, URL: ethURL},
		},
		FeeEvery: node.Duration(feeEvery),
		// All nodes share the cores of one machine and compute signatures on
		// them: what is slow is not dead.
		AliveAfter: node.Duration(3 * time.Second), JoinWait: node.Duration(3 * time.Second), Silence: node.Duration(10 * time.Second),
		RaftMillis: 1500,
		// Nodes, chains and whoever tries them share one disk, which may be small, and on
		// a small file system of its own in chaos: it is to be filled to the end, and what
		// is slow is not refused.
		Disk: node.DiskLimits{LowMiB: 2, FullMiB: 1, SyncP99: node.Duration(5 * time.Second)},
	}
	for _, v := range Venues() {
		c.Prices = append(c.Prices, pricesURL+"/venue/"+v+"/{asset}")
	}
	return c
}
