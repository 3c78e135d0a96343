package chaintest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/erc20"
	"github.com/coffer-network/coffer/chains/internal/follow"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// body is an unsigned transaction of the fake, canonical CBOR in Unsigned.Bytes.
type body struct {
	Chain    string   `cbor:"1,keyasint"`
	Inputs   []string `cbor:"2,keyasint"` // coins
	Outputs  []output `cbor:"3,keyasint"`
	LockTime uint64   `cbor:"4,keyasint"`
	From     string   `cbor:"5,keyasint"` // accounts
	Sequence uint64   `cbor:"6,keyasint"`
	Gas      uint64   `cbor:"7,keyasint"`
	FeeCap   uint64   `cbor:"8,keyasint"`
	Tip      uint64   `cbor:"9,keyasint"`
}

type output struct {
	To     string    `cbor:"1,keyasint"`
	Asset  string    `cbor:"2,keyasint"`
	Amount fixed.Int `cbor:"3,keyasint"`
}

type rawTx struct {
	Bytes []byte    `cbor:"1,keyasint"`
	Sigs  [][]byte  `cbor:"2,keyasint"`
	Fee   fixed.Int `cbor:"3,keyasint"`
}

func (b body) spends() []string {
	if b.From != "" {
		return []string{fmt.Sprintf("%s:%d", b.From, b.Sequence)}
	}
	return b.Inputs
}

// Build implements chains.Chain.
func (f *Fake) Build(a ledger.Attempt) (chains.Unsigned, error) {
	b := body{Chain: f.name}
	var sign []chains.ToSign
	var err error
	switch {
	case !f.accounts && a.Bitcoin != nil:
		sign, err = f.buildCoins(&b, a.Bitcoin)
	case f.accounts && a.Ethereum != nil:
		sign, err = f.buildAccount(&b, a.Ethereum)
	default:
		err = errors.New("no transaction planned for this chain")
	}
	if err != nil {
		return chains.Unsigned{}, fmt.Errorf("%w: %w", chains.ErrAttempt, err)
	}
	u := chains.Unsigned{Chain: f.name, Bytes: ledger.Marshal(b), From: b.From, Inputs: sign}
	for i := range u.Inputs {
		u.Inputs[i].Digest = digest(u.Bytes, i)
	}
	if !f.accounts {
		u.TxID = f.idOf(b)
	}
	return u, nil
}

// idOf names an unsigned transaction. Coins' are named as on Bitcoin, so that a ledger
// knows its own outputs before it sees them (ledger.BitcoinTx).
func (f *Fake) idOf(b body) string {
	if f.accounts {
		return f.txid(hex.EncodeToString(ledger.Marshal(b)))
	}
	tx := ledger.BitcoinTx{LockTime: b.LockTime}
	for _, in := range b.Inputs {
		tx.Inputs = append(tx.Inputs, ledger.BitcoinIn{Outpoint: in})
	}
	for _, o := range b.Outputs {
		sats, _ := o.Amount.Uint64()
		tx.Outputs = append(tx.Outputs, ledger.BitcoinOut{Address: o.To, Sats: sats})
	}
	return tx.TxID()
}

func (f *Fake) buildCoins(b *body, p *ledger.BitcoinTx) ([]chains.ToSign, error) {
	var in, out uint64
	var sign []chains.ToSign
	b.LockTime = p.LockTime
	for _, c := range p.Inputs {
		in += c.Sats
		b.Inputs = append(b.Inputs, c.Outpoint)
		sign = append(sign, chains.ToSign{Pub: c.Pub, Path: c.Path, Sats: c.Sats})
	}
	for _, o := range p.Outputs {
		out += o.Sats
		b.Outputs = append(b.Outputs, output{o.Address, f.native, fixed.New(o.Sats)})
	}
	if len(sign) == 0 || len(b.Outputs) == 0 || in != out+p.Fee {
		return nil, fmt.Errorf("inputs %d are not outputs %d and fee %d", in, out, p.Fee)
	}
	return sign, nil
}

func (f *Fake) buildAccount(b *body, p *ledger.EthereumTx) ([]chains.ToSign, error) {
	b.From, b.Sequence, b.Gas, b.FeeCap, b.Tip = p.From, p.Sequence, p.Gas, p.FeeCap, p.Tip
	switch {
	case len(p.Data) != 0:
		token, listed := f.tokens[p.To]
		to, amount, err := erc20.ParseCall(p.Data)
		if err != nil || !listed || !p.Value.IsZero() {
			return nil, fmt.Errorf("call of %s, listed %t: %w", p.To, listed, err)
		}
		b.Outputs = []output{{to, token, amount}}
	case !p.Value.IsZero():
		b.Outputs = []output{{p.To, f.native, p.Value}}
	case p.To != p.From:
		return nil, fmt.Errorf("nothing to %s", p.To)
	}
	return []chains.ToSign{{Pub: p.Pub, Path: p.Path}}, nil
}

func digest(b []byte, i int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte("coffer fake digest "), b...), uint64(i)))
}

func (f *Fake) parse(u chains.Unsigned) (b body, err error) {
	if err := ledger.Unmarshal(u.Bytes, &b); err != nil {
		return b, fmt.Errorf("decode: %w", err)
	}
	want := 1
	if !f.accounts {
		want = len(b.Inputs)
	}
	switch {
	case u.Chain != f.name || b.Chain != f.name:
		return b, fmt.Errorf("of chain %q, want %q", u.Chain, f.name)
	case b.From != u.From || f.accounts != (b.From != ""):
		return b, errors.New("sender is not that of the bytes")
	case len(u.Inputs) != want || want == 0:
		return b, fmt.Errorf("%d digests, want %d", len(u.Inputs), want)
	case !f.accounts && (u.TxID == "" || u.TxID != f.idOf(b)):
		return b, errors.New("transaction id is not that of the bytes")
	}
	for i, in := range u.Inputs {
		if in.Digest != digest(u.Bytes, i) {
			return b, fmt.Errorf("digest %d is not that of the bytes", i)
		}
		if slices.Contains(b.Inputs[:min(i, len(b.Inputs))], b.spends()[min(i, len(b.spends())-1)]) {
			return b, fmt.Errorf("input %d twice", i)
		}
	}
	return b, nil
}

// Reads implements chains.Chain.
func (f *Fake) Reads(u chains.Unsigned) (spends []string, pays []ledger.Payment, err error) {
	b, err := f.parse(u)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	for _, o := range b.Outputs {
		pays = append(pays, ledger.Payment{Asset: o.Asset, To: o.To, Amount: o.Amount})
	}
	return b.spends(), pays, nil
}

// Finish implements chains.Chain.
func (f *Fake) Finish(u chains.Unsigned, sigs []chains.Signature) (chains.Raw, error) {
	b, err := f.parse(u)
	if err != nil {
		return chains.Raw{}, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	if len(sigs) != len(u.Inputs) {
		return chains.Raw{}, fmt.Errorf("%w: %d for %d inputs", chains.ErrSignature, len(sigs), len(u.Inputs))
	}
	raw := rawTx{Bytes: u.Bytes}
	var in, out fixed.Int
	var calc fixed.Calc
	for i, sig := range sigs {
		if !f.verify(u.Inputs[i], sig) {
			return chains.Raw{}, fmt.Errorf("%w: input %d", chains.ErrSignature, i)
		}
		raw.Sigs = append(raw.Sigs, append(append(append([]byte(nil), sig.R[:]...), sig.S[:]...), sig.RecID))
		in = calc.Add(in, fixed.New(u.Inputs[i].Sats))
	}
	for _, o := range b.Outputs {
		out = calc.Add(out, o.Amount)
	}
	if f.accounts {
		raw.Fee = calc.Mul(fixed.New(b.Gas), fixed.New(b.FeeCap))
	} else {
		raw.Fee = calc.Sub(in, out)
	}
	if err := calc.Err(); err != nil {
		return chains.Raw{}, fmt.Errorf("%w: fee: %w", chains.ErrUnsigned, err)
	}
	bytes := ledger.Marshal(raw)
	t, err := f.decodeRaw(bytes)
	return chains.Raw{Bytes: bytes, TxID: t.id}, err
}

// decodeRaw: signatures are part of the id where there are accounts, so that
// two signatures of one payload are two transactions (spec: outflows §4.3).
func (f *Fake) decodeRaw(b []byte) (*transaction, error) {
	var raw rawTx
	if err := ledger.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	t := &transaction{fee: raw.Fee}
	if err := ledger.Unmarshal(raw.Bytes, &t.body); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if t.body.Chain != f.name {
		return nil, fmt.Errorf("of chain %q, want %q", t.body.Chain, f.name)
	}
	t.spends = t.body.spends()
	t.payload = f.idOf(t.body)
	t.id = t.payload
	if f.accounts {
		t.id = f.txid(hex.EncodeToString(b))
	}
	return t, nil
}

// Watch implements chains.Chain.
func (f *Fake) Watch(ctx context.Context, v chains.View, cur chains.Cursor) (chains.Observations, chains.Cursor, error) {
	o, next, err := f.watch(ctx, v, cur)
	if err != nil {
		return chains.Observations{}, cur, fmt.Errorf("watch %s: %w", f.name, err)
	}
	return o, next, nil
}

func (f *Fake) watch(ctx context.Context, v chains.View, cur chains.Cursor) (o chains.Observations, _ chains.Cursor, err error) {
	s, err := follow.Load(cur, f.caip2, f.start)
	if err != nil {
		return o, nil, err
	}
	behind, err := s.Step(ctx, v, f, follow.Limits{Start: f.start, Steps: 64, Chunk: 1, Longest: !f.accounts})
	if err != nil {
		return o, nil, err
	}
	head, ok := s.Head()
	if f.accounts && ok && head.Height >= f.lag {
		s.Final = max(s.Final, head.Height-f.lag)
	}
	anchors := map[string]bool{}
	for _, a := range v.Anchors {
		anchors[a.Name] = true
	}
	unplanned := func(p follow.Spend) bool {
		holder, n := splitResource(p.Resource)
		if v.Coin != nil && v.Coin(p.Resource) {
			return true
		}
		if v.Sequence == nil {
			return false
		}
		next, ours := v.Sequence(holder)
		return ours && n >= next
	}
	keep := s.Next
	if f.accounts {
		keep = s.Final
	}
	s.Prune(v, keep, func(p follow.Spend) bool { return anchors[p.Resource] || unplanned(p) })
	o = s.Observe(f.name, behind)
	o.Tip = o.Head
	if f.accounts {
		o.Tip = ledger.HeightReport{}
		if hash := s.Hash(s.Final); hash != "" && s.Final > 0 {
			o.Tip = ledger.HeightReport{Chain: f.name, Height: s.Final, Hash: hash}
		}
	}
	o.Spends, err = s.Match(v, f.payload, func(seen *chains.SeenSpend, p follow.Spend, by *ledger.Attempt) error {
		f.conclude(s, seen, p, by)
		return nil
	}, unplanned)
	if err != nil {
		return o, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if behind == 0 && ok {
		o.Fee = &ledger.FeeReport{Chain: f.name, Rate: f.rate, Tip: f.tip}
	}
	if o.Tip.Hash != "" && f.accounts && o.Tip.Height <= f.head() {
		final := f.booksOf(o.Tip.Height)
		for _, a := range v.Floats {
			o.Floats = append(o.Floats, ledger.FloatFact{Chain: f.name, Address: a, Amount: final.balances[a+"/"+f.native]})
		}
		o.Inflows = append(o.Inflows, f.natives(v, o.Head.Height, o.Tip, final)...)
	}
	return o, s.Cursor(), nil
}

// Consumed implements chains.Chain.
func (f *Fake) Consumed(_ context.Context, resources []string) (gone []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range resources {
		holder, n := splitResource(name)
		_, unspent := f.now.coins[name]
		if f.accounts && n < f.now.next[holder] || !f.accounts && !unspent {
			gone = append(gone, name)
		}
	}
	return gone, nil
}

// Custody implements chains.Chain. A member whose picture has another block at the
// height gets no answer.
func (f *Fake) Custody(_ context.Context, v chains.View, cur chains.Cursor, ask chains.Ask) (chains.Held, error) {
	h, err := f.custody(v, cur, ask)
	if err != nil {
		return chains.Held{}, fmt.Errorf("custody of %s on %s at %d: %w", ask.Asset, f.name, ask.Height, err)
	}
	return h, nil
}

func (f *Fake) custody(v chains.View, cur chains.Cursor, ask chains.Ask) (h chains.Held, err error) {
	s, err := follow.Load(cur, f.caip2, f.start)
	if err != nil {
		return h, err
	}
	if h.Block, err = s.Asked(ask.Height); err != nil {
		return h, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	listed := ask.Asset == f.native
	for _, id := range f.tokens {
		listed = listed || id == ask.Asset
	}
	if !listed || ask.Height > f.head() || f.blocks[ask.Height].hash != h.Block {
		return h, fmt.Errorf("%w: unknown asset, or not in the best chain", chains.ErrNoBalance)
	}
	books := f.booksOf(ask.Height)
	var sum fixed.Calc
	if f.accounts {
		owners := append(slices.Clone(v.Vaults), ask.At...)
		slices.Sort(owners)
		for _, owner := range slices.Compact(owners) {
			held := books.balances[owner+"/"+ask.Asset]
			h.Amount = sum.Add(h.Amount, held)
			if !slices.Contains(v.Vaults, owner) {
				h.Waiting = sum.Add(h.Waiting, held)
			} else if owner == ask.Apart {
				h.Apart = sum.Add(h.Apart, held)
			}
		}
		return h, sum.Err()
	}
	for name, k := range books.coins { // a sum, in any order
		from, watched := v.Watched.From(k.address)
		switch {
		case ask.Ours != nil && ask.Ours(name):
			h.Amount = sum.Add(h.Amount, k.sats)
		case watched && k.height >= from && slices.Contains(v.Vaults, k.address):
			h.Strangers = sum.Add(h.Strangers, k.sats)
		}
	}
	return h, sum.Err()
}

// Rescan implements chains.Chain.
func (f *Fake) Rescan(c chains.Cursor, height uint64) (chains.Cursor, error) {
	return follow.Again(c, f.caip2, f.start, height)
}

// natives are what deposit addresses hold of the chain's own coin at the final height
// and the ledger has not counted. As in the real adapter, a balance alone tells it.
func (f *Fake) natives(v chains.View, head uint64, tip ledger.HeightReport, final books) (seen []chains.Seen) {
	if v.Native == nil || v.Watched == nil {
		return nil
	}
	for n := range v.Watched.Registered() {
		a, ok := v.Watched.Number(n)
		if !ok {
			continue
		}
		if total, word := v.Native(a, tip.Height, final.balances[a+"/"+f.native]); word == ledger.NativeMore {
			seen = append(seen, chains.Seen{Depth: head - tip.Height + 1, Fact: ledger.InflowFact{
				Chain: f.name, ID: ledger.NativeID(a, tip.Height), Address: a, Asset: f.native, Amount: total, Height: tip.Height, Block: tip.Hash,
			}})
		}
	}
	return seen
}

func (f *Fake) payload(a ledger.Attempt) (string, error) {
	u, err := f.Build(a)
	if err == nil && f.accounts {
		u.TxID = f.txid(hex.EncodeToString(u.Bytes))
	}
	return u.TxID, err
}

func (f *Fake) conclude(s *follow.State, seen *chains.SeenSpend, p follow.Spend, by *ledger.Attempt) {
	seen.Final = !f.accounts && seen.Depth >= f.final || f.accounts && p.Height <= s.Final
	if by == nil || !seen.Final {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Height > f.head() {
		return // the world moved on since the step
	}
	for _, t := range f.blocks[p.Height].txs {
		if t.id != p.TxID {
			continue
		}
		seen.Fee, seen.Outcome = t.fee, ledger.OutcomePaid
		switch {
		case t.failed:
			seen.Outcome = ledger.OutcomeReverted
		case t.silent:
			seen.Outcome = ledger.OutcomeUnclear
		case by.Cancels():
			seen.Outcome = ledger.OutcomeSelf
		}
	}
}

func verifyECDSA(in chains.ToSign, sig chains.Signature) bool {
	var r, s secp256k1.ModNScalar
	if r.SetBytes(&sig.R) != 0 || s.SetBytes(&sig.S) != 0 || r.IsZero() || s.IsZero() || s.IsOverHalfOrder() {
		return false
	}
	pub, err := secp256k1.ParsePubKey(in.Pub)
	return err == nil && ecdsa.NewSignature(&r, &s).Verify(in.Digest[:], pub)
}
