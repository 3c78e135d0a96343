package ledger

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

const (
	coreStart = 1_700_000_000_000 // ledger time at genesis
	coreToken = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
	payeeETH  = "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"
	btcCAIP2  = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"
	ethCAIP2  = "eip155:1337"
	gweiCore  = 1_000_000_000
)

var etherCore = n("10000000000000000000")

// cluster drives one replica through Execute with everything signed for real:
// four members, f = 1, m = 3, and the pools of the worked example.
type cluster struct {
	t       testing.TB
	s       *State
	keys    []ed25519.PrivateKey // sorted by member id
	ecdsa   *secp256k1.PrivateKey
	ed25519 ed25519.PrivateKey
	seq     uint64
	last    Result
	log     [][]byte // every command so far, refused ones too
	emitted []Event  // by all of them
	broken  bool     // books are broken on purpose: no Check after each command
}

func seedOf(what string, i int) []byte {
	h := sha256.Sum256(fmt.Append(nil, "coffer/test/", what, "/", i))
	return h[:]
}

func memberKey(i int) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seedOf("member", i)) }

func idOf(k ed25519.PrivateKey) MemberID { return MemberID(k.Public().(ed25519.PublicKey)) }

func coreMembers(count int) (keys []ed25519.PrivateKey, members []Member) {
	for i := range count {
		keys = append(keys, memberKey(i))
	}
	slices.SortFunc(keys, func(a, b ed25519.PrivateKey) int {
		x, y := idOf(a), idOf(b)
		return slices.Compare(x[:], y[:])
	})
	for i, k := range keys {
		members = append(members, Member{ID: idOf(k), Name: fmt.Sprint("node-", i+1), Operator: fmt.Sprint("operator-", i+1), Addr: fmt.Sprint("/ip4/127.0.0.1/tcp/", 4100+i)})
	}
	return keys, members
}

func coreGenesis() (Genesis, []ed25519.PrivateKey) {
	keys, members := coreMembers(4)
	pool := func(asset string, base, opt, s1, s2, rf, ltv, lt, least uint64) PoolParam {
		return PoolParam{
			Asset: asset, Base: base, Opt: opt, S1: s1, S2: s2, RF: rf, LTV: ltv, LT: lt, Bonus: 10_500, LiqFee: 1000,
			MinSupply: fixed.New(least), MinBorrow: fixed.New(least), MinWithdraw: fixed.New(least),
		}
	}
	return Genesis{
		Version: 1, Name: "coffer-test", Brand: "coffer.test", Millis: coreStart,
		Epoch: Epoch{Members: members, F: 1, M: 3, FactQuorum: 3},
		Chains: []ChainParam{
			{Name: Bitcoin, CAIP2: btcCAIP2, Start: 100, Final: 6, MinRate: 1_500, MaxRate: 20_000, BlockSubsidy: 320_000_000},
			{Name: Ethereum, CAIP2: ethCAIP2, Sweep: 2, MinRate: gweiCore, MaxRate: 20 * gweiCore, MinTip: gweiCore, Float: etherCore},
		},
		Assets: []AssetParam{
			{ID: "btc", Symbol: "BTC", Decimals: 8, Chain: Bitcoin},
			{ID: "eth", Symbol: "ETH", Decimals: 18, Chain: Ethereum, Gas: 21_000},
			{ID: "usdt.eth", Symbol: "USDT", Decimals: 6, Chain: Ethereum, Token: coreToken, Gas: 100_000, Stable: true},
		},
		Pools: []PoolParam{
			pool("btc", 0, 4500, 400, 30_000, 2000, 7500, 8000, 5_100),
			pool("usdt.eth", 200, 9200, 700, 30_000, 1000, 6500, 7400, 1_000_000),
		},
		Params: DefaultParams(),
	}, keys
}

// newCluster has applied nothing but its genesis.
func newCluster(t testing.TB, change ...func(*Genesis)) *cluster {
	t.Helper()
	g, keys := coreGenesis()
	for _, f := range change {
		f(&g)
	}
	s, err := NewState(g)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{
		t: t, s: s, keys: keys, ecdsa: secp256k1.PrivKeyFromBytes(seedOf("ecdsa", 0)), ed25519: ed25519.NewKeyFromSeed(seedOf("ed25519", 0)),
	}
}

// running is a cluster with keys in force, prices, fee rates, heights and
// floats: BTC at 50,000, ETH at 2,500, USDT at 1 USD.
func running(t testing.TB, change ...func(*Genesis)) *cluster {
	t.Helper()
	c := newCluster(t, change...)
	c.tick(1000)
	c.tick(1000)
	c.keygen()
	c.flip()
	c.tick(15_000)
	c.all(KindHeight, []HeightReport{{Chain: Bitcoin, Height: 200, Hash: "b"}, {Chain: Ethereum, Height: 100, Hash: "e"}})
	c.all(KindFee, []FeeReport{{Chain: Bitcoin, Rate: 2_000}, {Chain: Ethereum, Rate: gweiCore, Tip: gweiCore}})
	c.prices("5000000000000", "250000000000", "100000000")
	for _, role := range []string{address.RoleGas, address.RoleHot} {
		w, ok := c.s.Vault(Ethereum, role)
		if !ok {
			t.Fatalf("no vault %s", role)
		}
		c.all(KindFloat, FloatFact{Chain: Ethereum, Address: w.Address, Amount: etherCore})
	}
	return c
}

// Commands.

func (c *cluster) run(cmd Command) Code { return c.raw(Marshal(cmd)) }

func (c *cluster) raw(b []byte) Code {
	c.t.Helper()
	c.last = c.s.Execute(b)
	c.log = append(c.log, b)
	c.emitted = append(c.emitted, c.last.Events...)
	if !c.broken {
		if err := c.s.Check(); err != nil {
			c.t.Fatalf("after %s at height %d: %v", c.last.Code, c.s.Height, err)
		}
	}
	return c.last.Code
}

// say has member i attest body.
func (c *cluster) say(i int, kind Kind, body any) Code {
	c.t.Helper()
	c.seq++
	return c.run(Command{Attestation: NewAttestation(c.keys[i], c.s.Cluster, c.seq, kind, body)})
}

// some has members 0 … count−1 attest body, each answered with OK.
func (c *cluster) some(count int, kind Kind, body any) {
	c.t.Helper()
	for i := range count {
		if code := c.say(i, kind, body); code != OK {
			c.t.Fatalf("member %d, kind %d, %+v: %s", i, kind, body, code)
		}
	}
}

// all is some of all; one who comes after the quorum of an inflow hears so.
func (c *cluster) all(kind Kind, body any) {
	c.t.Helper()
	for i := range c.keys {
		if code := c.say(i, kind, body); code != OK && code != DuplicateInflow {
			c.t.Fatalf("member %d, kind %d, %+v: %s", i, kind, body, code)
		}
	}
}

// tick moves ledger time on by ms, in steps it allows.
func (c *cluster) tick(ms uint64) {
	c.t.Helper()
	for ms > 0 {
		step := min(ms, 10_000)
		c.all(KindClock, Clock{Millis: c.s.Millis + step})
		ms -= step
	}
}

// prices closes a round.
func (c *cluster) prices(btc, eth, usdt string) {
	c.t.Helper()
	round := c.s.Time() / 15
	for _, asset := range []string{"btc", "eth", "usdt.eth"} { // a round of its own after the last
		if p := c.s.Prices.at(asset); p.Round >= round && p.Round != 0 {
			c.tick(15_000)
			round = c.s.Time() / 15
		}
	}
	c.all(KindPrice, []PriceReport{
		{Asset: "btc", Round: round, Price: n(btc), Observed: c.s.Millis},
		{Asset: "eth", Round: round, Price: n(eth), Observed: c.s.Millis},
		{Asset: "usdt.eth", Round: round, Price: n(usdt), Observed: c.s.Millis},
	})
}

// refresh says the present prices again, so that none is stale.
func (c *cluster) refresh() {
	c.t.Helper()
	c.prices(c.s.Prices.at("btc").Low.String(), c.s.Prices.at("eth").Low.String(), c.s.Prices.at("usdt.eth").Low.String())
}

func (c *cluster) sign(key string, digest Hash) []byte {
	if key == KeyEd255191 {
		return ed25519.Sign(c.ed25519, digest[:])
	}
	return ecdsa.SignCompact(c.ecdsa, digest[:], true)[1:]
}

func (c *cluster) shareReady(key string) ShareReady {
	k := c.nextKey(key)
	r := ShareReady{Key: key, Epoch: c.s.Next.Epoch.Number, Try: k.Try, Transcript: sha256.Sum256([]byte(key))}
	if r.Pub = c.ecdsa.PubKey().SerializeCompressed(); key == KeyEd255191 {
		r.Pub = c.ed25519.Public().(ed25519.PublicKey)
	}
	return r
}

func (c *cluster) nextKey(key string) NextKey {
	for _, k := range c.s.Next.Keys {
		if k.Key == key {
			return k
		}
	}
	c.t.Fatalf("key %s is not being made", key)
	return NextKey{}
}

// keygen brings the planned keys to the opening of their epoch.
func (c *cluster) keygen() {
	c.t.Helper()
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		c.all(KindShareReady, c.shareReady(key))
	}
	for _, key := range []string{KeyECDSA1, KeyEd255191} {
		for _, id := range c.nextKey(key).Tests {
			c.all(KindTestSig, TestSig{Batch: id, Signature: c.sign(key, c.s.Batches.at(id).Digest)})
		}
	}
}

// flipCertificate certifies the opened epoch with the given members.
func (c *cluster) flipCertificate(signers ...ed25519.PrivateKey) Certificate {
	c.t.Helper()
	o := c.s.Opening
	if o == nil {
		c.t.Fatal("no epoch is opened")
	}
	cert := Certificate{Approval: Approval{
		Cluster: c.s.Cluster, Epoch: c.s.Epoch().Number, Height: o.Height, Head: o.Head,
		RootHeight: o.Height, Root: o.Root, Members: o.Epoch.MembersHash(),
	}}
	for _, k := range signers {
		cert.Signatures = append(cert.Signatures, SignApproval(k, cert.Approval))
	}
	return cert
}

func (c *cluster) flip() {
	c.t.Helper()
	if code := c.say(0, KindFlip, c.flipCertificate(c.keys[:3]...)); code != OK || c.s.Epoch().Number != 1 {
		c.t.Fatalf("flip: %s, epoch %d", code, c.s.Epoch().Number)
	}
}

// Clients.

// wallet signs requests with a scheme.
type wallet struct {
	key    *secp256k1.PrivateKey
	id     address.CAIP10
	scheme string
}

func btcWallet(i int) wallet {
	k := secp256k1.PrivKeyFromBytes(seedOf("wallet", i))
	a := must(address.P2WPKH("regtest", k.PubKey().SerializeCompressed()))
	return wallet{k, must(address.ParseCAIP10(btcCAIP2 + ":" + a)), address.SchemeBIP322}
}

func taprootWallet(i int) wallet {
	k := secp256k1.PrivKeyFromBytes(seedOf("wallet", i))
	a := must(address.P2TR("regtest", k.PubKey().SerializeCompressed()))
	return wallet{k, must(address.ParseCAIP10(btcCAIP2 + ":" + a)), address.SchemeBIP322}
}

func ethWallet(i int) wallet {
	k := secp256k1.PrivKeyFromBytes(seedOf("wallet", i))
	a := address.EthereumAddress(must(address.EthereumOf(k.PubKey().SerializeCompressed())))
	return wallet{k, must(address.ParseCAIP10(ethCAIP2 + ":" + a)), address.SchemeEIP191}
}

func (w wallet) sign(text string) *Intent {
	in := &Intent{Scheme: w.scheme, Text: text}
	if w.scheme == address.SchemeEIP191 {
		in.Signature = address.SignEIP191(w.key, []byte(text))
	} else {
		in.Signature = must(address.SignBIP322Simple(w.key, "regtest", w.id.Address, []byte(text)))
	}
	return in
}

func accountOf(c *cluster, w wallet) AccountID {
	id := address.AccountID(c.s.Genesis.ClusterName(), w.id)
	return hex.EncodeToString(id[:])
}

// text renders a request with its tail filled in: the wallet's own account, the
// expected nonce, five minutes. change may spoil it.
func (c *cluster) text(w wallet, cmd address.Command, change ...func(*address.Command)) string {
	cmd.Account = address.AccountID(c.s.Genesis.ClusterName(), w.id)
	cmd.Signer, cmd.Cluster = w.id, c.s.Genesis.ClusterName()
	cmd.Nonce, cmd.Expires = c.s.Accounts.at(accountOf(c, w)).Nonce, int64(c.s.Time()+300)
	for _, f := range change {
		f(&cmd)
	}
	return c.s.Grammar().Render(&cmd)
}

func (c *cluster) ask(w wallet, cmd address.Command, change ...func(*address.Command)) Code {
	c.t.Helper()
	return c.run(Command{Intent: w.sign(c.text(w, cmd, change...))})
}

func (c *cluster) open(w wallet) AccountID {
	c.t.Helper()
	if code := c.ask(w, address.Command{Action: address.ActionOpenAccount}); code != OK {
		c.t.Fatalf("open account: %s", code)
	}
	return accountOf(c, w)
}

func (c *cluster) payout(action, pool, units, to, maxFee string) address.Command {
	g := c.s.Grammar()
	chain, addr := btcCAIP2, to
	if pool != "btc" {
		chain = ethCAIP2
	}
	return address.Command{
		Action: action, Amount: g.Amount(pool, units), Pool: pool, To: must(address.SplitCAIP10(chain + ":" + addr)), MaxFee: g.Amount(pool, maxFee),
	}
}

func (c *cluster) borrowUSDT(units string) address.Command {
	return c.payout(address.ActionBorrow, "usdt.eth", units, payeeETH, "10000000")
}

// payeeBTC is an address of nobody's.
func payeeBTC(i int) string { return btcWallet(1000 + i).id.Address }

// inflowTo is the fact of a deposit; each is another transaction.
func (c *cluster) inflowTo(account AccountID, asset string, purpose Purpose, units string) InflowFact {
	c.t.Helper()
	a, _ := c.s.Genesis.Asset(asset)
	w, ok := c.s.AddressOf(account, a.Chain, purpose)
	if !ok {
		c.t.Fatalf("account %s has no address on %s", account, a.Chain)
	}
	id := sha256.Sum256(fmt.Append(nil, account, asset, purpose, units, c.s.Height))
	return InflowFact{
		Chain: a.Chain, ID: hex.EncodeToString(id[:]) + ":0", Address: w.Address, Asset: asset, Amount: n(units),
		Height: c.s.Tips.at(a.Chain).Height, Block: "block-1",
	}
}

// deposit has a deposit attested, final, and swept where it must be.
func (c *cluster) deposit(account AccountID, asset string, purpose Purpose, units string) InflowFact {
	c.t.Helper()
	f := c.inflowTo(account, asset, purpose, units)
	c.all(KindInflow, f)
	c.mine(f.Chain, 12)
	for range 4 { // gas and sweep, each planned at a tick
		if in := c.s.Inflows.at(f.ID); in.State != InflowWaiting && in.State != InflowSweeping {
			break
		}
		c.tick(1000)
		for _, b := range c.payments() {
			c.pay(b)
		}
	}
	return f
}

// mine raises a chain's attested height.
func (c *cluster) mine(chain string, blocks uint64) {
	c.t.Helper()
	h := c.s.Tips.at(chain).Height + blocks
	c.all(KindHeight, []HeightReport{{Chain: chain, Height: h, Hash: fmt.Sprint(chain, h)}})
}

// payments are the open batches that pay, oldest first.
func (c *cluster) payments() []Batch {
	var bs []Batch
	for _, id := range c.s.Live.keys() {
		if b := c.s.Batches.at(id); b.Kind == BatchPay {
			bs = append(bs, b)
		}
	}
	return bs
}

func (c *cluster) payment() Batch {
	c.t.Helper()
	bs := c.payments()
	if len(bs) != 1 {
		c.t.Fatalf("%d open payments, want 1", len(bs))
	}
	return bs[0]
}

func (c *cluster) spentFact(b Batch) SpentFact {
	return SpentFact{Batch: b.ID, Body: b.Newest().Body, Height: c.s.Tips.at(b.Chain).Height + 1, Block: "block-2"}
}

func (c *cluster) finalFact(b Batch, how Outcome) FinalFact {
	a, fee := b.Newest(), fixed.New(50_000*gweiCore)
	if a.Bitcoin != nil {
		fee = fixed.New(a.Bitcoin.Fee)
	}
	txid := sha256.Sum256(fmt.Append(nil, "tx", b.ID, a.Body))
	return FinalFact{
		Batch: b.ID, Body: a.Body, Outcome: how, TxID: hex.EncodeToString(txid[:]), Fee: fee, Height: c.s.Tips.at(b.Chain).Height + 1, Block: "block-2",
	}
}

// pay has a batch's anchor spent and final, paying.
func (c *cluster) pay(b Batch) {
	c.t.Helper()
	spent, final := c.spentFact(b), c.finalFact(b, OutcomePaid)
	c.all(KindSpent, spent)
	c.mine(b.Chain, 12)
	c.all(KindFinal, final)
}

// lent is a running cluster with a lender's 100,000 USDT and a borrower's 1 BTC.
func lent(t testing.TB) (c *cluster, lender, borrower wallet) {
	t.Helper()
	c, lender, borrower = running(t), ethWallet(1), btcWallet(2)
	l, b := c.open(lender), c.open(borrower)
	c.deposit(l, "usdt.eth", PurposeSupply, "100000000000")
	c.deposit(b, "btc", PurposeSupply, "100000000")
	if c.s.supplyShares(l, "usdt.eth").IsZero() || c.s.supplyShares(b, "btc").IsZero() {
		t.Fatal("the deposits were not credited")
	}
	c.refresh()
	return c, lender, borrower
}

// frame is the state without what every command moves: place in the chain and
// the seats' numbers. Two states with one frame differ in nothing else.
func frame(s *State, also ...func(*State)) string {
	v := s.View()
	v.Height, v.Head, v.RootHeight, v.Root = 0, Hash{}, 0, Hash{}
	for _, k := range v.Seats.keys() {
		seat := v.Seats.at(k)
		seat.Seq = 0
		v.Seats.put(k, seat)
	}
	for _, f := range also {
		f(v)
	}
	return string(Marshal(v))
}

// apartFrom ignores what an account may always lose: nonce, last answers and
// the time of its last activity.
func apartFrom(id AccountID) func(*State) {
	return func(s *State) {
		if a, ok := s.Accounts.get(id); ok {
			a.Nonce, a.Results, a.Active = 0, nil, 0
			s.Accounts.put(id, a)
		}
	}
}

func TestRunningCluster(t *testing.T) {
	c, lender, borrower := lent(t)
	if c.s.Epoch().Number != 1 || c.s.Keys.len() != 2 || len(c.s.Flips) != 1 {
		t.Fatalf("epoch %d, %d keys, %d flips", c.s.Epoch().Number, c.s.Keys.len(), len(c.s.Flips))
	}
	ids := []AccountID{accountOf(c, lender), accountOf(c, borrower)}
	slices.SortFunc(ids, cmp.Compare)
	if got := c.s.Accounts.keys(); !slices.Equal(got, ids) {
		t.Errorf("accounts %v, want %v", got, ids)
	}
	// A replica restored from the snapshot goes on byte by byte like this one.
	other, err := DecodeState(Marshal(c.s))
	if err != nil {
		t.Fatal(err)
	}
	next := Marshal(Command{Intent: borrower.sign(c.text(borrower, c.borrowUSDT("20000000000")))})
	a, b := c.s.Execute(next), other.Execute(next)
	if a.Code != OK || a.Header != b.Header || string(Marshal(c.s)) != string(Marshal(other)) {
		t.Errorf("restored replica: %s %v, want %s %v", b.Code, b.Header, a.Code, a.Header)
	}
}
