package node

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

const (
	testStart  = 1_700_000_000_000
	testToken  = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
	testPayee  = "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"
	btcCAIP2   = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"
	ethCAIP2   = "eip155:1337"
	gwei       = 1_000_000_000
	lenderSeed = 1
	holderSeed = 2
)

// cluster is a real ledger of four members whose keys are here: what the plans
// of this package are asked about.
type cluster struct {
	t       testing.TB
	s       *ledger.State
	keys    []ed25519.PrivateKey // sorted by member id
	ecdsa   *secp256k1.PrivateKey
	ed25519 ed25519.PrivateKey
	seq     uint64
	serial  int
	log     [][]byte // every command so far
}

func seedOf(what string, i int) []byte {
	h := sha256.Sum256(fmt.Append(nil, "coffer/node/test/", what, "/", i))
	return h[:]
}

func idOf(k ed25519.PrivateKey) ledger.MemberID {
	return ledger.MemberID(k.Public().(ed25519.PublicKey))
}

func testGenesis(start uint64) (ledger.Genesis, []ed25519.PrivateKey) {
	var keys []ed25519.PrivateKey
	for i := range 4 {
		keys = append(keys, ed25519.NewKeyFromSeed(seedOf("member", i)))
	}
	slices.SortFunc(keys, func(a, b ed25519.PrivateKey) int {
		x, y := idOf(a), idOf(b)
		return slices.Compare(x[:], y[:])
	})
	e := ledger.Epoch{F: 1, M: 3, FactQuorum: 3}
	for i, k := range keys {
		e.Members = append(e.Members, ledger.Member{ID: idOf(k), Name: fmt.Sprint("node-", i+1), Operator: fmt.Sprint("operator-", i+1), Addr: "/ip4/127.0.0.1/tcp/4101"})
	}
	pool := func(asset string, least uint64) ledger.PoolParam {
		return ledger.PoolParam{
			Asset: asset, Base: 200, Opt: 9200, S1: 700, S2: 30_000, RF: 1000, LTV: 7500, LT: 8000, Bonus: 10_500, LiqFee: 1000,
			MinSupply: fixed.New(least), MinBorrow: fixed.New(least), MinWithdraw: fixed.New(least),
		}
	}
	params := ledger.DefaultParams()
	params.EIP712 = true
	return ledger.Genesis{
		Version: 1, Name: "coffer-test", Brand: "coffer.test", Millis: start, Epoch: e,
		Chains: []ledger.ChainParam{
			{Name: ledger.Bitcoin, CAIP2: btcCAIP2, Final: 6, MinRate: 1_500, MaxRate: 20_000, BlockSubsidy: 320_000_000},
			{Name: ledger.Ethereum, CAIP2: ethCAIP2, Sweep: 2, MinRate: gwei, MaxRate: 20 * gwei, MinTip: gwei, Float: fixed.MustParse("10000000000000000000")},
		},
		Wallets: []string{"icp:test", "solana:" + solanaTest},
		Assets: []ledger.AssetParam{
			{ID: "btc", Symbol: "BTC", Decimals: 8, Chain: ledger.Bitcoin},
			{ID: "eth", Symbol: "ETH", Decimals: 18, Chain: ledger.Ethereum, Gas: 21_000},
			{ID: "usdt.eth", Symbol: "USDT", Decimals: 6, Chain: ledger.Ethereum, Token: testToken, Gas: 100_000, Stable: true},
		},
		Pools:  []ledger.PoolParam{pool("btc", 5_100), pool("usdt.eth", 1_000_000)},
		Params: params,
	}, keys
}

// newCluster has applied nothing but its genesis.
func newCluster(t testing.TB, change ...func(*ledger.Genesis)) *cluster {
	t.Helper()
	g, keys := testGenesis(testStart)
	for _, f := range change {
		f(&g)
	}
	s, err := ledger.NewState(g)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{
		t: t, s: s, keys: keys, ecdsa: secp256k1.PrivKeyFromBytes(seedOf("ecdsa", 0)), ed25519: ed25519.NewKeyFromSeed(seedOf("ed25519", 0)),
	}
}

// opened is a cluster whose first epoch is opened and not in force.
func opened(t testing.TB, change ...func(*ledger.Genesis)) *cluster {
	t.Helper()
	c := newCluster(t, change...)
	c.tick(1000)
	c.tick(1000)
	for _, k := range c.s.Next.Keys {
		c.all(ledger.KindShareReady, c.ready(k))
	}
	for _, k := range c.s.Next.Keys {
		for _, id := range k.Tests {
			c.all(ledger.KindTestSig, c.test(id))
		}
	}
	if c.s.Opening == nil {
		t.Fatal("no epoch is opened")
	}
	return c
}

// running is a cluster with keys in force, prices, fee rates and heights.
func running(t testing.TB, change ...func(*ledger.Genesis)) *cluster {
	t.Helper()
	c := opened(t, change...)
	c.say(0, ledger.KindFlip, c.flip())
	for _, k := range c.live() { // test signatures with the activated KeyShares
		c.say(0, ledger.KindTestSig, c.test(k.ID))
	}
	c.tick(15_000)
	c.all(ledger.KindHeight, []ledger.HeightReport{{Chain: ledger.Bitcoin, Height: 200, Hash: "b"}, {Chain: ledger.Ethereum, Height: 100, Hash: "e"}})
	c.all(ledger.KindFee, []ledger.FeeReport{{Chain: ledger.Bitcoin, Rate: 2_000}, {Chain: ledger.Ethereum, Rate: gwei, Tip: gwei}})
	round := c.s.Time() / 15
	for asset, p := range map[string]uint64{"btc": 50_000, "eth": 2_500, "usdt.eth": 1} {
		c.all(ledger.KindPrice, []ledger.PriceReport{{Asset: asset, Round: round, Price: fixed.New(p * 100_000_000), Observed: c.s.Millis}})
	}
	return c
}

func (c *cluster) run(cmd ledger.Command) ledger.Code {
	c.t.Helper()
	c.log = append(c.log, ledger.Marshal(cmd))
	return c.s.Execute(c.log[len(c.log)-1]).Code
}

// say has member i attest body.
func (c *cluster) say(i int, kind ledger.Kind, body any) {
	c.t.Helper()
	c.seq++
	code := c.run(ledger.Command{Attestation: ledger.NewAttestation(c.keys[i], c.s.Cluster, c.seq, kind, body)})
	if code != ledger.OK && code != ledger.DuplicateInflow {
		c.t.Fatalf("member %d, kind %d, %+v: %s", i, kind, body, code)
	}
}

func (c *cluster) some(count int, kind ledger.Kind, body any) {
	c.t.Helper()
	for i := range count {
		c.say(i, kind, body)
	}
}

func (c *cluster) all(kind ledger.Kind, body any) { c.t.Helper(); c.some(4, kind, body) }

func (c *cluster) tick(ms uint64) {
	c.t.Helper()
	for ms > 0 {
		step := min(ms, 10_000)
		at := ledger.Clock{Millis: c.s.Millis + step}
		for i, k := range c.keys {
			if c.s.MaySay(idOf(k), ledger.KindClock) { // who was evicted says nothing
				c.say(i, ledger.KindClock, at)
			}
		}
		ms -= step
	}
}

func (c *cluster) ready(k ledger.NextKey) ledger.ShareReady {
	r := ledger.ShareReady{Key: k.Key, Epoch: c.s.Next.Epoch.Number, Try: k.Try, Pub: c.ecdsa.PubKey().SerializeCompressed(), Transcript: ledger.Hash{1}}
	if k.Key == ledger.KeyEd255191 {
		r.Pub = c.ed25519.Public().(ed25519.PublicKey)
	}
	return r
}

// test is the test signature that a batch asks for.
func (c *cluster) test(id uint64) ledger.TestSig {
	b := c.batch(id)
	if b.Key == ledger.KeyEd255191 {
		return ledger.TestSig{Batch: id, Signature: ed25519.Sign(c.ed25519, b.Digest[:])}
	}
	return ledger.TestSig{Batch: id, Signature: ecdsa.SignCompact(c.ecdsa, b.Digest[:], true)[1:]}
}

func (c *cluster) flip() ledger.Certificate {
	o := c.s.Opening
	a := ledger.Approval{
		Cluster: c.s.Cluster, Epoch: c.s.Epoch().Number, Height: o.Height, Head: o.Head, RootHeight: o.Height, Root: o.Root, Members: o.Epoch.MembersHash(),
	}
	cert := ledger.Certificate{Approval: a}
	for _, k := range c.keys[:c.s.Epoch().Q()] {
		cert.Signatures = append(cert.Signatures, ledger.SignApproval(k, a))
	}
	return cert
}

func (c *cluster) batch(id uint64) ledger.Batch {
	c.t.Helper()
	b, ok := c.s.Batches.Get(id)
	if !ok {
		c.t.Fatalf("no batch %d", id)
	}
	return b
}

// live are the open batches, oldest first.
func (c *cluster) live() []ledger.Batch {
	var bs []ledger.Batch
	for id := range c.s.Live.All() {
		bs = append(bs, c.batch(id))
	}
	return bs
}

// payment is the newest open batch that pays.
func (c *cluster) payment() ledger.Batch {
	c.t.Helper()
	var last ledger.Batch
	for _, b := range c.live() {
		if b.Kind == ledger.BatchPay {
			last = b
		}
	}
	if last.ID == 0 {
		c.t.Fatal("no payment is planned")
	}
	return last
}

// Clients.

type wallet struct {
	key *secp256k1.PrivateKey
	id  address.CAIP10
}

func walletOf(t testing.TB, i int) wallet {
	t.Helper()
	k := secp256k1.PrivKeyFromBytes(seedOf("wallet", i))
	a, err := address.P2WPKH("regtest", k.PubKey().SerializeCompressed())
	if err != nil {
		t.Fatal(err)
	}
	id, err := address.ParseCAIP10(btcCAIP2 + ":" + a)
	if err != nil {
		t.Fatal(err)
	}
	return wallet{k, id}
}

func (c *cluster) ask(w wallet, cmd address.Command) {
	c.t.Helper()
	if code := c.run(c.intent(w, cmd)); code != ledger.OK {
		c.t.Fatalf("%s: %s", cmd.Action, code)
	}
}

// intent is what w signs now.
func (c *cluster) intent(w wallet, cmd address.Command) ledger.Command {
	c.t.Helper()
	cmd.Account = address.AccountID(c.s.Genesis.ClusterName(), w.id)
	a, _ := c.s.Accounts.Get(hex.EncodeToString(cmd.Account[:]))
	cmd.Signer, cmd.Cluster, cmd.Nonce, cmd.Expires = w.id, c.s.Genesis.ClusterName(), a.Nonce, int64(c.s.Time()+300)
	text := c.s.Grammar().Render(&cmd)
	sig, err := address.SignBIP322Simple(w.key, "regtest", w.id.Address, []byte(text))
	if err != nil {
		c.t.Fatal(err)
	}
	return ledger.Command{Intent: &ledger.Intent{Scheme: address.SchemeBIP322, Text: text, Signature: sig}}
}

func (c *cluster) open(w wallet) ledger.AccountID {
	c.t.Helper()
	c.ask(w, address.Command{Action: address.ActionOpenAccount})
	id := address.AccountID(c.s.Genesis.ClusterName(), w.id)
	return hex.EncodeToString(id[:])
}

// inflow is the fact of a deposit; each is another transaction.
func (c *cluster) inflow(account ledger.AccountID, asset, units, block string) ledger.InflowFact {
	c.t.Helper()
	a, _ := c.s.Genesis.Asset(asset)
	w, ok := c.s.AddressOf(account, a.Chain, ledger.PurposeSupply)
	if !ok {
		c.t.Fatalf("no address of %s", account)
	}
	c.serial++
	tip, _ := c.s.Tips.Get(a.Chain)
	return ledger.InflowFact{
		Chain: a.Chain, ID: fmt.Sprintf("%064x:0", c.serial), Address: w.Address, Asset: asset, Amount: fixed.MustParse(units), Height: tip.Height, Block: block,
	}
}

// paying is a running cluster with a withdrawal of 0.4 BTC planned.
func paying(t testing.TB, change ...func(*ledger.Genesis)) (*cluster, ledger.Batch) {
	t.Helper()
	c := running(t, change...)
	w := walletOf(t, holderSeed)
	id := c.open(w)
	c.all(ledger.KindInflow, c.inflow(id, "btc", "100000000", "block-1"))
	c.all(ledger.KindHeight, []ledger.HeightReport{{Chain: ledger.Bitcoin, Height: 212, Hash: "b"}})
	g := c.s.Grammar()
	c.ask(w, address.Command{
		Action: address.ActionWithdraw, Amount: g.Amount("btc", "40000000"), Pool: "btc", To: walletOf(t, 99).id, MaxFee: g.Amount("btc", "10000"),
	})
	c.tick(1000)
	return c, c.payment()
}

// child signs a digest with the key that a path derives.
func (c *cluster) child(in chains.ToSign) (sig [64]byte, recID byte) {
	c.t.Helper()
	delta, err := address.Delta(address.KeyECDSA, ledger.KeyECDSA1, c.ecdsa.PubKey().SerializeCompressed(), in.Path)
	if err != nil {
		c.t.Fatal(err)
	}
	var d secp256k1.ModNScalar
	d.SetBytes(&delta)
	key := secp256k1.NewPrivateKey(d.Add(&c.ecdsa.Key))
	compact := ecdsa.SignCompact(key, in.Digest[:], true)
	return [64]byte(compact[1:]), (compact[0] - 31) & 1
}

// testChains are the real adapters, of which only the pure half is used here.
func testChains(t testing.TB, g ledger.Genesis) map[string]chains.Chain {
	t.Helper()
	out := map[string]chains.Chain{}
	for _, p := range g.Chains {
		ch, err := newChain(ChainConfig{Name: p.Name, URL: "http://127.0.0.1:1"}, p, g.Assets)
		if err != nil {
			t.Fatal(err)
		}
		out[p.Name] = ch
	}
	return out
}
