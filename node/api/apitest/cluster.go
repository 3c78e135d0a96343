// Package apitest is a cluster in memory for tests of the API and its clients:
// the real ledger, with members and master keys whose private halves are here,
// behind api.Backend.
//
// It promises that what it says about money was decided by ledger.Execute. It
// leaves out ordering, signing and chains: deposits and payouts are attested by
// all members as if they had been seen.
package apitest

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// Chains of the test cluster.
const (
	BitcoinCAIP2  = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"
	EthereumCAIP2 = "eip155:1337"
	Token         = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
)

const start = 1_700_000_000_000 // ledger time at genesis, ms

// Cluster is one replica whose commands are applied as they come.
type Cluster struct {
	t       testing.TB
	genesis ledger.Genesis       // before the members
	members []ed25519.PrivateKey // sorted by id
	ecdsa   *secp256k1.PrivateKey
	ed25519 ed25519.PrivateKey

	mu      sync.Mutex
	state   *ledger.State
	view    *ledger.State
	applied chan struct{} // closed at the next command
	seq     uint64
	blocks  uint64
	stop    *stop
	status  api.NodeStatus
	running []api.Session
	signed  map[uint64][]api.SignedSession
	seen    map[ledger.AccountID][]api.Sighting

	history  *history.Store
	log      [][]byte   // commands since genesis
	replicas []*Cluster // other nodes that apply them
	leader   *Cluster   // of a replica; nil: this is it
}

// stop holds up Submit.
type stop struct {
	err   error         // given at once
	until chan struct{} // waited for
}

// New is a cluster whose genesis alone is applied: no keys yet. change alters
// the genesis first.
func New(t testing.TB, change ...func(*ledger.Genesis)) *Cluster {
	t.Helper()
	g := genesis()
	for _, f := range change {
		f(&g)
	}
	return of(t, g)
}

func of(t testing.TB, g ledger.Genesis) *Cluster {
	t.Helper()
	c := &Cluster{
		t: t, genesis: g, applied: make(chan struct{}), blocks: 100,
		signed: map[uint64][]api.SignedSession{}, seen: map[ledger.AccountID][]api.Sighting{},
		status: api.NodeStatus{Name: "node-1", Version: "test", Role: "leader", Leader: "node-1"},
	}
	for i := range 4 {
		c.members = append(c.members, ed25519.NewKeyFromSeed(seed("member", i)))
	}
	id := func(k ed25519.PrivateKey) ledger.MemberID { return ledger.MemberID(k.Public().(ed25519.PublicKey)) }
	slices.SortFunc(c.members, func(a, b ed25519.PrivateKey) int {
		x, y := id(a), id(b)
		return slices.Compare(x[:], y[:])
	})
	c.ecdsa = secp256k1.PrivKeyFromBytes(seed("ecdsa", 0))
	c.ed25519 = ed25519.NewKeyFromSeed(seed("ed25519", 0))
	for i, k := range c.members {
		name := fmt.Sprintf("node-%d", i+1)
		g.Epoch.Members = append(g.Epoch.Members, ledger.Member{
			ID: id(k), Name: name, Operator: "operator " + name, Addr: fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 4101+i),
		})
	}
	c.status.Member = id(c.members[0])
	s, err := ledger.NewState(g)
	if err != nil {
		t.Fatalf("test genesis: %v", err)
	}
	c.state, c.view = s, s.Frozen()
	c.history = history.Open(history.Config{Cluster: s.Cluster})
	return c
}

// NewWithKeys is New with keys in force, prices, fee rates and chain heights:
// BTC at $50,000, ETH at $2,500, USDT at $1.
func NewWithKeys(t testing.TB, change ...func(*ledger.Genesis)) *Cluster {
	t.Helper()
	return New(t, change...).withKeys()
}

// NewWithUSDC is NewWithKeys with a third pool, usdc.eth at $1, whose collateral
// is taken at a bonus of 18 %.
func NewWithUSDC(t testing.TB) *Cluster {
	t.Helper()
	g := genesis()
	usdc := g.Assets[2]
	usdc.ID, usdc.Symbol, usdc.Token = "usdc.eth", "USDC", "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
	pool := g.Pools[1]
	pool.Asset, pool.Bonus = usdc.ID, 11_800
	g.Assets, g.Pools = slices.Insert(g.Assets, 2, usdc), slices.Insert(g.Pools, 1, pool)
	c := of(t, g).withKeys()
	c.Prices(map[string]uint64{usdc.ID: 1})
	return c
}

func (c *Cluster) withKeys() *Cluster {
	c.t.Helper()
	c.Tick(time.Second)
	c.Tick(time.Second)
	for _, k := range c.View().Next.Keys {
		r := ledger.ShareReady{Key: k.Key, Epoch: 1, Try: k.Try, Transcript: sha256.Sum256([]byte(k.Key))}
		if r.Pub = c.ecdsa.PubKey().SerializeCompressed(); k.Key == ledger.KeyEd255191 {
			r.Pub = c.ed25519.Public().(ed25519.PublicKey)
		}
		c.Say(ledger.KindShareReady, r)
	}
	for _, k := range c.View().Next.Keys {
		for _, batch := range k.Tests {
			b, _ := c.View().Batches.Get(batch)
			c.Say(ledger.KindTestSig, ledger.TestSig{Batch: batch, Signature: c.sign(k.Key, b.Digest)})
		}
	}
	c.flip()
	c.Tick(20 * time.Second)
	c.Say(ledger.KindHeight, []ledger.HeightReport{{Chain: "btc", Height: 100, Hash: "b"}, {Chain: "eth", Height: 100, Hash: "e"}})
	c.Say(ledger.KindFee, []ledger.FeeReport{{Chain: "btc", Rate: 1_000}, {Chain: "eth", Rate: 1_000_000_000, Tip: 1_000_000_000}})
	c.Prices(map[string]uint64{"btc": 50_000, "eth": 2_500, "usdt.eth": 1})
	if hot, ok := c.View().Vault("eth", address.RoleGas); ok {
		c.Say(ledger.KindFloat, ledger.FloatFact{Chain: "eth", Address: hot.Address, Amount: ether})
	}
	if hot, ok := c.View().Vault("eth", address.RoleHot); ok {
		c.Say(ledger.KindFloat, ledger.FloatFact{Chain: "eth", Address: hot.Address, Amount: ether})
	}
	return c
}

var ether = fixed.New(1_000_000_000_000_000_000)

func seed(what string, i int) []byte {
	h := sha256.Sum256([]byte(fmt.Sprint("apitest/", what, "/", i)))
	return h[:]
}

func genesis() ledger.Genesis {
	pool := func(asset string, least uint64) ledger.PoolParam {
		return ledger.PoolParam{
			Asset: asset, Opt: 8000, S1: 400, S2: 6000, RF: 1000, LTV: 7500, LT: 8000, Bonus: 10500,
			MinSupply: fixed.New(least), MinBorrow: fixed.New(least), MinWithdraw: fixed.New(least),
		}
	}
	return ledger.Genesis{
		Version: 1, Name: "coffer-test-1", Brand: "coffer.test", Millis: start,
		Epoch: ledger.Epoch{F: 1, M: 3, FactQuorum: 3},
		Chains: []ledger.ChainParam{
			{Name: "btc", CAIP2: BitcoinCAIP2, Final: 6, Sweep: 1, MinRate: 1_000, MaxRate: 50_000, BlockSubsidy: 5_000_000_000},
			{Name: "eth", CAIP2: EthereumCAIP2, Sweep: 1, MinRate: 1, MaxRate: 10_000_000_000, MinTip: 1, Float: ether},
		},
		Assets: []ledger.AssetParam{
			{ID: "btc", Symbol: "BTC", Decimals: 8, Chain: "btc"},
			{ID: "eth", Symbol: "ETH", Decimals: 18, Chain: "eth", Gas: 21_000},
			{ID: "usdt.eth", Symbol: "USDT", Decimals: 6, Chain: "eth", Token: Token, Gas: 65_000, Stable: true},
		},
		Pools:  []ledger.PoolParam{pool("btc", 10_000), pool("usdt.eth", 1_000_000)},
		Params: ledger.DefaultParams(),
	}
}

func (c *Cluster) sign(key string, digest ledger.Hash) []byte {
	if key == ledger.KeyEd255191 {
		return ed25519.Sign(c.ed25519, digest[:])
	}
	sig := ecdsa.SignCompact(c.ecdsa, digest[:], true)
	return sig[1:]
}

// Drill is what operators print who signed with backups of the KeyShares in force.
func (c *Cluster) Drill(name string) client.Drilled {
	v := c.View()
	d := client.Drilled{Name: name, Signatures: map[string]string{}}
	for _, k := range v.Keys.All() {
		d.Signatures[k.ID] = hex.EncodeToString(c.sign(k.ID, ledger.DrillMessage(v.Cluster, k.ID, k.Epoch, name)))
	}
	return d
}

// PrivateKey is the private half of one of the cluster's own addresses: what a
// quorum's sessions compute with, here in one place.
func (c *Cluster) PrivateKey(p address.Path) *secp256k1.PrivateKey {
	c.t.Helper()
	delta, err := address.Delta(address.KeyECDSA, ledger.KeyECDSA1, c.ecdsa.PubKey().SerializeCompressed(), p)
	if err != nil {
		c.t.Fatal(err)
	}
	var tweak secp256k1.ModNScalar
	tweak.SetBytes(&delta)
	return secp256k1.NewPrivateKey(tweak.Add(&c.ecdsa.Key))
}

// flip certifies the opened epoch.
func (c *Cluster) flip() {
	v := c.View()
	o := v.Opening
	if o == nil {
		c.t.Fatal("the test cluster opened no epoch")
	}
	a := ledger.Approval{
		Cluster: v.Cluster, Epoch: 0, Height: o.Height, Head: o.Head, RootHeight: o.Height, Root: o.Root, Members: o.Epoch.MembersHash(),
	}
	cert := ledger.Certificate{Approval: a}
	for _, k := range c.members[:v.Epoch().Q()] {
		cert.Signatures = append(cert.Signatures, ledger.SignApproval(k, a))
	}
	c.say(c.members[0], ledger.KindFlip, cert)
}

// EIP712 sets whether requests may be signed by that scheme, as a vote would.
func (c *Cluster) EIP712(on bool) { c.Params(func(p *ledger.Params) { p.EIP712 = on }) }

// Params sets parameters of the whole cluster at once, as votes would after
// days.
func (c *Cluster) Params(change func(*ledger.Params)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.state.Params)
	c.view = c.state.Frozen()
}

// Insure makes an account the insurance account, as a vote would.
func (c *Cluster) Insure(account ledger.AccountID) {
	c.Params(func(p *ledger.Params) { p.Insurance = []ledger.AccountID{account} })
}

// Stop has a FactQuorum vote for a flag, which is in force at once. pool "" is
// the whole cluster.
func (c *Cluster) Stop(pool string, flag ledger.Flag) {
	c.t.Helper()
	p := ledger.Proposal{Kind: ledger.ProposeStop, Text: "test", Pool: pool, Flag: flag}
	for _, k := range c.members[:c.View().Epoch().FactQuorum] {
		if code := c.say(k, ledger.KindVote, ledger.Vote{Hash: p.Hash(), Yes: true, Proposal: &p}); code != ledger.OK {
			c.t.Fatalf("vote to stop %q: %s", pool, code)
		}
	}
}

// Say has every member attest body, and expects OK of each.
func (c *Cluster) Say(kind ledger.Kind, body any) {
	c.t.Helper()
	for _, k := range c.members {
		if code := c.say(k, kind, body); code != ledger.OK && code != ledger.DuplicateInflow {
			c.t.Fatalf("attest %v %+v: %s", kind, body, code)
		}
	}
}

func (c *Cluster) say(k ed25519.PrivateKey, kind ledger.Kind, body any) ledger.Code {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	a := ledger.NewAttestation(k, c.state.Cluster, c.seq, kind, body)
	return c.execute(ledger.Marshal(ledger.Command{Attestation: a})).Code
}

// FoldRoot applies commands that say nothing up to the next height that folds a root.
func (c *Cluster) FoldRoot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.execute(nil).Header.Height%ledger.RootInterval != 0 {
	}
}

func (c *Cluster) execute(raw []byte) ledger.Result {
	r := c.state.Execute(raw)
	c.view = c.state.Frozen()
	c.log = append(c.log, raw)
	var known *ledger.Command
	if cmd := new(ledger.Command); ledger.Unmarshal(raw, cmd) == nil {
		known = cmd
	}
	c.history.Applied(history.Of(c.state, known, r))
	close(c.applied)
	c.applied = make(chan struct{})
	for _, other := range c.replicas {
		other.mu.Lock()
		other.execute(raw)
		other.mu.Unlock()
	}
	return r
}

// History is what this node remembers.
func (c *Cluster) History() *history.Store { return c.history }

// Remember replaces the node's memory, before anything asked for it.
func (c *Cluster) Remember(s *history.Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history = s
}

// Replica is another node of the cluster, with a state and a memory of its own:
// it applied all that this one did and goes on doing so.
func (c *Cluster) Replica() *Cluster {
	r := of(c.t, c.genesis)
	c.mu.Lock()
	defer c.mu.Unlock()
	r.leader, r.status.Name, r.status.Role = c, fmt.Sprintf("node-%d", len(c.replicas)+2), "follower"
	for _, raw := range c.log {
		r.execute(raw)
	}
	c.replicas = append(c.replicas, r)
	return r
}

// Tick moves ledger time on, in steps that it allows.
func (c *Cluster) Tick(d time.Duration) {
	for d > 0 {
		step := min(d, 10*time.Second)
		c.Say(ledger.KindClock, ledger.Clock{Millis: c.View().Millis + uint64(step.Milliseconds())})
		d -= step
	}
}

// Weigh has all members say that custody holds what the books have of an asset, less
// so many base units.
func (c *Cluster) Weigh(asset string, missing uint64) {
	c.t.Helper()
	c.Tick(11 * time.Second) // a balance is asked for in ten seconds at most once
	if code := c.say(c.members[0], ledger.KindBalance, ledger.BalanceFact{Asset: asset}); code != ledger.OK {
		c.t.Fatalf("ask for a balance of %s: %s", asset, code)
	}
	v := c.View()
	row, _ := v.Solvency.Get(asset)
	if row.Open == nil {
		c.t.Fatalf("no balance of %s is asked for", asset)
	}
	amount, err := fixed.Sub(v.Books(asset), fixed.New(missing))
	if err != nil {
		c.t.Fatal(err)
	}
	f := ledger.BalanceFact{Asset: asset, Asked: row.Open.Asked, Height: row.Open.Height, Block: "block", Amount: amount}
	if gas, _ := v.Vault(ledger.Ethereum, address.RoleGas); asset == "eth" {
		from, _ := v.Senders.Get(gas.Address)
		f.AtGas = from.Float
	}
	c.Say(ledger.KindBalance, f)
}

// Prices closes a round, in whole USD.
func (c *Cluster) Prices(usd map[string]uint64) {
	v := c.View()
	var rs []ledger.PriceReport
	for asset, p := range usd {
		rs = append(rs, ledger.PriceReport{
			Asset: asset, Round: v.Time() / v.Params.RoundSeconds, Price: fixed.New(p * 100_000_000), Observed: v.Millis,
		})
	}
	slices.SortFunc(rs, func(a, b ledger.PriceReport) int { return cmp.Compare(a.Asset, b.Asset) })
	c.Say(ledger.KindPrice, rs)
}

// Mine raises a chain's height.
func (c *Cluster) Mine(chain string, n uint64) {
	tip, _ := c.View().Tips.Get(chain)
	c.Say(ledger.KindHeight, []ledger.HeightReport{{Chain: chain, Height: tip.Height + n, Hash: fmt.Sprint(chain, tip.Height+n)}})
}

// Deposit pays an account's address, and settles whatever must be swept.
func (c *Cluster) Deposit(account, asset string, purpose ledger.Purpose, units uint64) {
	c.t.Helper()
	v := c.View()
	a, _ := v.Genesis.Asset(asset)
	w, ok := v.AddressOf(account, a.Chain, purpose)
	if !ok {
		c.t.Fatalf("account %s has no address on %s", account, a.Chain)
	}
	tip, _ := v.Tips.Get(a.Chain)
	c.mu.Lock()
	c.blocks++
	txid := fmt.Sprintf("%064x:0", c.blocks)
	c.mu.Unlock()
	c.Say(ledger.KindInflow, ledger.InflowFact{
		Chain: a.Chain, ID: txid, Address: w.Address, Asset: asset, Amount: fixed.New(units), Height: tip.Height, Block: "block",
	})
	c.Mine(a.Chain, 12)
	if a.Chain == "eth" {
		c.Settle()
		c.Settle()
	}
}

// Settle ticks until outflows are planned and has them paid, once round.
func (c *Cluster) Settle() {
	c.t.Helper()
	c.Tick(10 * time.Second)
	v := c.View()
	for id := range v.Live.All() {
		b, _ := v.Batches.Get(id)
		if b.Kind != ledger.BatchPay {
			continue
		}
		tip, _ := v.Tips.Get(b.Chain)
		a := b.Newest()
		c.Say(ledger.KindSpent, ledger.SpentFact{Batch: id, Body: a.Body, Height: tip.Height, Block: "block"})
		c.Mine(b.Chain, 12)
		fee := fixed.New(1_000)
		if a.Bitcoin != nil {
			fee = fixed.New(a.Bitcoin.Fee)
		}
		c.Say(ledger.KindFinal, ledger.FinalFact{
			Batch: id, Body: a.Body, Outcome: ledger.OutcomePaid, TxID: fmt.Sprintf("%064x", 1_000_000+id), Fee: fee, Height: tip.Height, Block: "block",
		})
	}
}

// Hold makes Submit answer err; nil lets it go on.
func (c *Cluster) Hold(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = nil
	if err != nil {
		c.stop = &stop{err: err}
	}
}

// Stall makes Submit wait until the returned function is called.
func (c *Cluster) Stall() (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &stop{until: make(chan struct{})}
	c.stop = s
	return sync.OnceFunc(func() { close(s.until) })
}

// Change sets what the node says of itself.
func (c *Cluster) Change(f func(*api.NodeStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.status)
}

// Note adds sessions and sightings that only this node knows.
func (c *Cluster) Note(running []api.Session, signed map[uint64][]api.SignedSession, seen map[ledger.AccountID][]api.Sighting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.signed, c.seen = running, signed, seen
}
