package chaintest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// FakeConfig describes a chain in memory. A chain whose Final is 0 has
// accounts and sequences, another has coins.
type FakeConfig struct {
	Chain  ledger.ChainParam
	Assets []ledger.AssetParam
	// Lag is how far finality is behind the head of a chain with accounts.
	Lag uint64
	// Verify checks a signature; nil: ECDSA. A simulator that does not sign
	// for real brings its own.
	Verify func(in chains.ToSign, sig chains.Signature) bool
}

// Fake is a chain in memory: one world that any number of members watch.
type Fake struct {
	name, caip2, native string
	start, final, lag   uint64
	accounts            bool
	tokens              map[string]string // contract → asset
	verify              func(chains.ToSign, chains.Signature) bool

	mu        sync.Mutex
	blocks    []block
	waiting   []*transaction // in order of arrival
	made      uint64         // blocks and transactions ever made by the fake itself: makes hashes differ
	rate, tip uint64
	floor     uint64 // what blocks demand of ours
	reverts   map[string]bool
	mute      map[string]bool
	now       books
	past      books // of the block pastHash, which was asked for last
	pastHash  string
}

type block struct {
	hash, parent string
	txs          []*transaction
}

// transaction is one of ours, or the world's own if it has no unsigned bytes.
type transaction struct {
	id, payload string
	body        body
	spends      []string
	fee         fixed.Int
	foreign     bool
	robbed      string // whom the outputs are taken from, without a sequence of his; empty: from outside
	failed      bool   // executed and reverted, as of the block it is in
	silent      bool   // executed, and neither moved anything nor said so
}

// books are what the best chain adds up to.
type books struct {
	height   uint64          // of the block whose transactions are executed
	coins    map[string]coin // outpoint → unspent
	next     map[string]uint64
	balances map[string]fixed.Int // "address/asset"
}

type coin struct {
	address string
	sats    fixed.Int
	height  uint64
}

// Payment is what the best chain says that somebody received.
type Payment struct {
	TxID   string
	Height uint64
	Spends []string // resources the transaction consumed; none: a deposit from outside
	ledger.Payment
}

// NewFake returns a chain that has its genesis block.
func NewFake(cfg FakeConfig) *Fake {
	f := &Fake{
		name: cfg.Chain.Name, caip2: cfg.Chain.CAIP2, start: cfg.Chain.Start, final: cfg.Chain.Final,
		lag: cfg.Lag, accounts: cfg.Chain.Final == 0, native: cfg.Chain.Name, tokens: map[string]string{},
		verify: cfg.Verify, rate: cfg.Chain.MinRate, tip: cfg.Chain.MinTip, reverts: map[string]bool{}, mute: map[string]bool{},
	}
	for _, a := range cfg.Assets {
		switch {
		case a.Chain != cfg.Chain.Name:
		case a.Token == "":
			f.native = a.ID
		default:
			f.tokens[a.Token] = a.ID
		}
	}
	if f.verify == nil {
		f.verify = verifyECDSA
	}
	f.blocks = []block{{hash: f.hash("genesis")}}
	f.replay()
	return f
}

// Mine adds n blocks; the first takes whatever can be executed.
func (f *Fake) Mine(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.mine(true)
	}
}

// Reorg replaces the last depth blocks by a longer, empty branch. What was in
// them is forgotten: deposits are gone, ours must be sent again.
func (f *Fake) Reorg(depth int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	depth = min(depth, len(f.blocks)-1)
	f.blocks = f.blocks[:len(f.blocks)-depth]
	f.replay()
	for range depth + 1 {
		f.mine(false)
	}
}

// Deposit sends an amount from outside and returns the id its inflow will have.
func (f *Fake) Deposit(to, asset string, amount fixed.Int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &transaction{body: body{Outputs: []output{{To: to, Asset: asset, Amount: amount}}}, foreign: true}
	t.id = f.txid(f.unique("deposit"))
	f.waiting = append(f.waiting, t)
	return t.id + ":0"
}

// Foreign consumes a resource by a transaction that nobody planned, as a thief
// with the key would. Whatever of ours waits for it is pushed out.
func (f *Fake) Foreign(resource string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(t *transaction) bool { return slices.Contains(t.spends, resource) })
	t := &transaction{spends: []string{resource}, foreign: true}
	t.id = f.txid(f.unique("foreign"))
	t.payload = t.id
	f.waiting = append(f.waiting, t)
}

// Rob takes an amount of a token from an address without any transaction of it, as
// the token's issuer can, or whoever finds a hole in its contract.
func (f *Fake) Rob(from, asset string, amount fixed.Int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &transaction{body: body{Outputs: []output{{To: "thief", Asset: asset, Amount: amount}}}, foreign: true, robbed: from}
	t.id = f.txid(f.unique("rob"))
	f.waiting = append(f.waiting, t)
}

// Forget empties the memory of what waits to be mined.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = nil
}

// SetFees sets what Watch reports.
func (f *Fake) SetFees(rate, tip uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate, f.tip = rate, tip
}

// Congest has blocks leave out what pays less for its size: sat/kvB, or wei a gas.
func (f *Fake) Congest(floor uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.floor = floor
}

// Revert makes transfers to an address fail, on a chain with accounts.
func (f *Fake) Revert(to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reverts[to] = true
}

// Mute makes the token transfers to an address, in blocks to come, succeed without
// moving anything or a log, until it is taken back.
func (f *Fake) Mute(to string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute[to] = on
}

// Height is that of the best block.
func (f *Fake) Height() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head()
}

// Balance is what an address holds of an asset in the best chain.
func (f *Fake) Balance(addr, asset string) fixed.Int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now.balances[addr+"/"+asset]
}

// Payments are all in the best chain, in its order: what an auditor reads.
func (f *Fake) Payments() []Payment {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Payment
	for h, b := range f.blocks {
		for _, t := range b.txs {
			if t.failed || t.silent {
				continue
			}
			for _, o := range t.body.Outputs {
				out = append(out, Payment{
					TxID: t.id, Height: uint64(h), Spends: slices.Clone(t.spends),
					Payment: ledger.Payment{Asset: o.Asset, To: o.To, Amount: o.Amount},
				})
			}
		}
	}
	return out
}

// Fees are what the best chain's transactions of ours cost, by id: also of those that
// failed and are in no Payments.
func (f *Fake) Fees() map[string]fixed.Int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]fixed.Int{}
	for _, b := range f.blocks {
		for _, t := range b.txs {
			if !t.foreign {
				out[t.id] = t.fee
			}
		}
	}
	return out
}

// Silent is the transaction in the best chain that consumed a resource and, muted,
// moved nothing.
func (f *Fake) Silent(resource string) (txid string, fee fixed.Int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.blocks {
		for _, t := range b.txs {
			if t.silent && slices.Contains(t.spends, resource) {
				return t.id, t.fee, true
			}
		}
	}
	return "", fixed.Int{}, false
}

func (f *Fake) head() uint64 { return uint64(len(f.blocks) - 1) }

func (f *Fake) unique(what string) string {
	f.made++
	return fmt.Sprintf("%s %d", what, f.made)
}

func (f *Fake) hash(what string) string {
	h := sha256.Sum256([]byte("coffer fake " + f.caip2 + " " + what))
	return hex.EncodeToString(h[:])
}

func (f *Fake) txid(what string) string {
	if f.accounts {
		return "0x" + f.hash("tx "+what)
	}
	return f.hash("tx " + what)
}

// mine appends a block. Transactions with a gap before them stay waiting.
func (f *Fake) mine(full bool) {
	parent := f.blocks[len(f.blocks)-1]
	b := block{hash: f.hash(f.unique("block " + parent.hash)), parent: parent.hash}
	for progress := full; progress; {
		progress = false
		f.waiting = slices.DeleteFunc(f.waiting, func(t *transaction) bool {
			if f.now.executable(t) != nil || !t.foreign && f.price(t) < f.floor {
				return false
			}
			f.now.height = f.head() + 1
			t.silent = slices.ContainsFunc(t.body.Outputs, func(o output) bool { return o.Asset != f.native && f.mute[o.To] })
			f.now.execute(f, t)
			b.txs = append(b.txs, t)
			progress = true
			return true
		})
	}
	f.blocks = append(f.blocks, b)
}

func (f *Fake) replay() {
	f.now = books{coins: map[string]coin{}, next: map[string]uint64{}, balances: map[string]fixed.Int{}}
	for h, b := range f.blocks {
		f.now.height = uint64(h)
		for _, t := range b.txs {
			f.now.execute(f, t)
		}
	}
}

// booksOf are those of the best chain up to a height.
func (f *Fake) booksOf(height uint64) books {
	if hash := f.blocks[height].hash; f.pastHash != hash {
		f.pastHash, f.past = hash, books{coins: map[string]coin{}, next: map[string]uint64{}, balances: map[string]fixed.Int{}}
		for h, b := range f.blocks[:height+1] {
			f.past.height = uint64(h)
			for _, t := range b.txs {
				f.past.move(f, t)
			}
		}
	}
	return f.past
}

var (
	errConsumed = errors.New("resource consumed or unknown")
	errGap      = errors.New("sequence not reached")
)

// executable says whether everything t consumes is there to be consumed.
func (s *books) executable(t *transaction) error {
	for _, name := range t.spends {
		holder, index := splitResource(name)
		if !strings.HasPrefix(holder, "0x") {
			if _, ok := s.coins[name]; !ok {
				return errConsumed
			}
			continue
		}
		switch next := s.next[holder]; {
		case index < next:
			return errConsumed
		case index > next:
			return errGap
		}
	}
	return nil
}

func splitResource(name string) (string, uint64) {
	holder, text, _ := strings.Cut(name, ":")
	n, _ := strconv.ParseUint(text, 10, 64) // names are of our own making
	return holder, n
}

func (s *books) add(addr, asset string, v fixed.Int) {
	sum, err := fixed.Add(s.balances[addr+"/"+asset], v)
	if err != nil {
		panic(fmt.Sprintf("chaintest: balance of %s: %v", addr, err))
	}
	s.balances[addr+"/"+asset] = sum
}

// take lowers a balance, or reports that it is too small.
func (s *books) take(addr, asset string, v fixed.Int) bool {
	rest, err := fixed.Sub(s.balances[addr+"/"+asset], v)
	if err == nil {
		s.balances[addr+"/"+asset] = rest
	}
	return err == nil
}

// execute does what a transaction does in the next block.
func (s *books) execute(f *Fake, t *transaction) {
	t.failed = false
	for _, o := range t.body.Outputs {
		from := t.payer(f)
		t.failed = t.failed || from != "" && (f.reverts[o.To] || s.balances[from+"/"+o.Asset].Less(o.Amount))
	}
	s.move(f, t)
}

// payer is whose balance the outputs come out of; empty: nobody's.
func (t *transaction) payer(f *Fake) string {
	if f.accounts && !t.foreign {
		return t.body.From
	}
	return t.robbed
}

// move does what a transaction did, whether it failed being known.
func (s *books) move(f *Fake, t *transaction) {
	for _, name := range t.spends {
		if c, ok := s.coins[name]; ok {
			delete(s.coins, name)
			s.take(c.address, f.native, c.sats)
		} else {
			holder, index := splitResource(name)
			s.next[holder] = index + 1
		}
	}
	if f.accounts && !t.foreign {
		if !s.take(t.body.From, f.native, t.fee) {
			s.balances[t.body.From+"/"+f.native] = fixed.Int{} // spent by a sequence before: the fee is what was left
		}
	}
	if t.failed || t.silent {
		return
	}
	for i, o := range t.body.Outputs {
		if from := t.payer(f); from != "" {
			s.take(from, o.Asset, o.Amount)
		}
		s.add(o.To, o.Asset, o.Amount)
		if !f.accounts {
			s.coins[t.id+":"+strconv.Itoa(i)] = coin{o.To, o.Amount, s.height}
		}
	}
}

// Broadcast implements chains.Chain.
func (f *Fake) Broadcast(_ context.Context, raw []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.decodeRaw(raw)
	if err != nil {
		return fmt.Errorf("broadcast on %s: %w: %w", f.name, chains.ErrRefused, err)
	}
	if err := f.accept(t); err != nil {
		return fmt.Errorf("broadcast %s on %s: %w", t.id, f.name, err)
	}
	return nil
}

func (f *Fake) accept(t *transaction) error {
	same := func(o *transaction) bool { return o.id == t.id }
	for _, b := range f.blocks {
		if slices.ContainsFunc(b.txs, same) {
			return nil
		}
	}
	if slices.ContainsFunc(f.waiting, same) {
		return nil
	}
	if errors.Is(f.now.executable(t), errConsumed) {
		return chains.ErrAnchorSpent
	}
	if f.accounts && f.now.balances[t.body.From+"/"+f.native].Less(t.fee) {
		return fmt.Errorf("%w: sender cannot pay the fee", chains.ErrRefused)
	}
	if !f.accounts && !f.now.balanced(t) {
		return fmt.Errorf("%w: it does not spend what its inputs hold", chains.ErrRefused)
	}
	conflict := func(o *transaction) bool {
		return slices.ContainsFunc(t.spends, func(name string) bool { return slices.Contains(o.spends, name) })
	}
	for _, o := range f.waiting {
		if conflict(o) && !f.outbids(t, o) {
			return chains.ErrTooCheap
		}
	}
	f.waiting = append(slices.DeleteFunc(f.waiting, conflict), t)
	return nil
}

// balanced reports whether t's inputs hold its outputs and its fee.
func (s *books) balanced(t *transaction) bool {
	var calc fixed.Calc
	var in fixed.Int
	out := t.fee
	for _, name := range t.spends {
		in = calc.Add(in, s.coins[name].sats)
	}
	for _, o := range t.body.Outputs {
		out = calc.Add(out, o.Amount)
	}
	return calc.Err() == nil && in == out
}

// outbids: +10 % of both prices on a chain with accounts (spec: outflows §4.1),
// else a higher price and a fee that pays for its own size on top (§3.2).
func (f *Fake) outbids(t, old *transaction) bool {
	if !f.accounts {
		var calc fixed.Calc
		least := calc.Add(old.fee, fixed.New(t.vsize()))
		return f.price(t) > f.price(old) && !t.fee.Less(least)
	}
	over := func(a, b uint64) bool { return a > b && a-b >= (b+9)/10 }
	return over(t.body.FeeCap, old.body.FeeCap) && over(t.body.Tip, old.body.Tip)
}

// vsize is about what a transaction of coins weighs, vB.
func (t *transaction) vsize() uint64 {
	return uint64(11 + 68*len(t.body.Inputs) + 31*len(t.body.Outputs))
}

// price is what a transaction pays for its size: sat/kvB, or wei a gas.
func (f *Fake) price(t *transaction) uint64 {
	if f.accounts {
		return t.body.FeeCap
	}
	fee, _ := t.fee.Uint64()
	return fee * 1000 / max(t.vsize(), 1)
}

// Best implements follow.Source.
func (f *Fake) Best(context.Context) (uint64, error) { return f.Height(), nil }

// HashAt implements follow.Source.
func (f *Fake) HashAt(_ context.Context, height uint64) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if height > f.head() {
		return "", fmt.Errorf("%w: no block %d", chains.ErrEndpoint, height)
	}
	return f.blocks[height].hash, nil
}

// Read implements follow.Source.
func (f *Fake) Read(_ context.Context, from, to uint64, w follow.Want) ([]follow.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to > f.head() {
		return nil, fmt.Errorf("%w: no block %d", chains.ErrEndpoint, to)
	}
	var out []follow.Found
	for h := from; h <= to; h++ {
		out = append(out, f.scan(h, w))
	}
	return out, nil
}

func (f *Fake) scan(h uint64, w follow.Want) follow.Found {
	b := f.blocks[h]
	found := follow.Found{Block: follow.Block{Height: h, Hash: b.hash}, Parent: b.parent}
	fresh := map[string]bool{}
	for _, t := range b.txs {
		for _, name := range t.spends {
			holder, _ := splitResource(name)
			if fresh[name] || w.Resource(name) || f.accounts && w.Address(holder, h) {
				found.Spends = append(found.Spends, follow.Spend{
					Resource: name, TxID: t.id, Payload: t.payload, Height: h, Block: b.hash,
				})
			}
		}
		for i, o := range t.body.Outputs {
			// As in the real adapter, ether leaves no event.
			if t.failed || t.silent || f.accounts && o.Asset == f.native || !w.Address(o.To, h) {
				continue
			}
			id := t.id + ":" + strconv.Itoa(i)
			fresh[id] = true
			if f.accounts && !slices.Contains(slices.Collect(maps.Values(f.tokens)), o.Asset) {
				found.Ignored = append(found.Ignored, follow.Ignored{Height: h, TxID: t.id, Address: o.To, Reason: "unlisted token"})
				continue
			}
			found.Inflows = append(found.Inflows, ledger.InflowFact{
				Chain: f.name, ID: id, Address: o.To, Asset: o.Asset, Amount: o.Amount, Height: h, Block: b.hash,
			})
		}
	}
	return found
}
