package ledger

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Bitcoin (spec: outflows §3.1, §6.4, §7).

const (
	dustSats      = 546 // for every script type; 294 would do for P2WPKH
	maxInputs     = 100
	maxNoChange   = 5_000 // sats that may go to the fee rather than into change
	changeSpendVB = 68    // what spending the change later costs
)

// bitcoinVSize is the size of a transaction of P2WPKH inputs at their largest,
// in vB (spec: outflows §7).
func bitcoinVSize(inputs int, scriptLens ...int) uint64 {
	w := 42 + 272*inputs
	for _, l := range scriptLens {
		w += 4 * (9 + l)
	}
	return uint64(w+3) / 4
}

// recipient is one output to plan: what it takes from the account, and where it goes.
type recipient struct {
	To    string
	Gross uint64 // sats, the client's part of the fee included
}

// anchors reports whether a coin may be an anchor: final, and of no transaction
// that may still confirm (spec: outflows U3, §3.7).
func (s *State) anchors(k Coin) bool {
	c, _ := s.Genesis.Chain(Bitcoin)
	return k.State != CoinReusable && k.Height+c.Final-1 <= s.Tips.at(Bitcoin).Height
}

// bitcoinPlan fixes the transaction that pays the payees: coins of the vault
// largest first, the anchor among them with F confirmations; an heir is the
// anchor of what it is kept for (spec: outflows B2, U2, U3). The fee is split
// evenly over the payees, the remainder to the first; whatever of the coins is
// neither paid nor fee comes back as change.
func (s *State) bitcoinPlan(vault Watch, heir string, pays []recipient) (tx BitcoinTx, fees []fixed.Int, code Code) {
	c, _ := s.Genesis.Chain(Bitcoin)
	rate, ok := s.freshRate(Bitcoin)
	if !ok {
		return tx, nil, Halted
	}
	net := must(bitcoinNetwork(c))
	lens := make([]int, 0, len(pays)+1)
	var gross uint64
	for _, p := range pays {
		script, err := address.ScriptOf(net, p.To)
		if err != nil {
			return tx, nil, DestinationRefused
		}
		lens, gross = append(lens, len(script)), gross+p.Gross
	}
	tip := s.Tips.at(Bitcoin).Height
	anchors := s.anchors

	var picked []Coin
	var sum uint64
	anchored := false
	pick := func(k Coin) { picked, sum, anchored = append(picked, k), sum+k.Sats, anchored || anchors(k) }
	if heir != "" {
		pick(s.Coins.at(heir))
		anchored = true
	}
	spare := s.spareCoins(vault.Address)
	for _, k := range spare {
		if sum >= gross {
			break
		}
		pick(k)
	}
	if !anchored { // enough coins; the smallest that can anchor joins them
		for _, k := range slices.Backward(spare[len(picked):]) {
			if anchors(k) {
				pick(k)
				break
			}
		}
	}
	if sum < gross || !anchored {
		return tx, nil, NoLiquidity
	}
	if len(picked) > maxInputs {
		return tx, nil, OutflowCap // consolidate first
	}
	first := 0
	if heir == "" {
		first = slices.IndexFunc(picked, anchors) // the largest anchor first, then ledger order
	}
	anchor := picked[first]
	picked = append([]Coin{anchor}, slices.Delete(slices.Clone(picked), first, first+1)...)
	slices.SortFunc(picked[1:], func(a, b Coin) int { return cmp.Compare(a.Outpoint, b.Outpoint) })

	kvb := func(vsize uint64) uint64 { return (vsize*rate.Rate + 999) / 1000 }
	change := sum - gross
	parts := uint64(0)
	if change >= dustSats+kvb(changeSpendVB) || change > maxNoChange {
		parts = changeParts(vault, change, len(spare)-len(picked))
	}
	for range parts {
		lens = append(lens, p2wpkhScriptLen)
	}
	fee := kvb(bitcoinVSize(len(picked), lens...))
	n := uint64(len(pays))
	tx = BitcoinTx{LockTime: tip, Rate: rate.Rate, Fee: fee}
	for i, p := range pays {
		part := fee / n
		if i == 0 {
			part += fee % n
		}
		if n == 1 && (part >= p.Gross || p.Gross-part < dustSats) {
			return tx, nil, BelowMin
		}
		fees = append(fees, fixed.New(part))
		tx.Outputs = append(tx.Outputs, BitcoinOut{Address: p.To, Sats: p.Gross - min(part, p.Gross)})
	}
	for _, k := range picked {
		w := s.Watched.at(Bitcoin + "/" + k.Address)
		tx.Inputs = append(tx.Inputs, BitcoinIn{Outpoint: k.Outpoint, Sats: k.Sats, Pub: w.Pub, Path: w.Path})
	}
	for i := range parts {
		out := BitcoinOut{Address: vault.Address, Sats: change / parts}
		if i == 0 {
			out.Sats += change % parts
		}
		tx.Outputs = append(tx.Outputs, out)
	}
	if parts == 0 {
		tx.Fee += change
	}
	return tx, fees, OK
}

const p2wpkhScriptLen = 22

func (x *execution) planBitcoin(o Outflow) Code {
	role := address.RoleMinter
	if o.Boosted {
		role = address.RolePool
	}
	vault, ok := x.s.Vault(Bitcoin, role)
	if !ok {
		return Halted
	}
	_, code := x.planBitcoinBatch(vault, []Outflow{o})
	return code
}

// planBitcoinBatch plans one transaction that pays the outflows, all of one vault
// and, where they have one, of one heir. too lists those whose part of the fee is
// more than they signed: then nothing is planned.
func (x *execution) planBitcoinBatch(vault Watch, os []Outflow) (too []uint64, code Code) {
	s := x.s
	pays := make([]recipient, len(os))
	for i, o := range os {
		gross, ok := o.Gross.Uint64()
		if !ok {
			return nil, Arith
		}
		pays[i] = recipient{o.To, gross}
	}
	tx, fees, code := s.bitcoinPlan(vault, os[0].Heir, pays)
	if code != OK {
		return nil, code
	}
	for i, o := range os {
		if o.MaxFee.Less(fees[i]) && o.Account != "" || tx.Outputs[i].Sats < dustSats {
			too = append(too, o.ID) // it waits, others pass it
		}
		tx.Outputs[i].Outflow = o.ID
	}
	if len(too) > 0 {
		return too, FeeTooHigh
	}
	b := x.newBatch(Bitcoin, tx.Inputs[0].Outpoint, vault, os, fees)
	x.freeze(tx, b.ID)
	x.openAttempt(b, Attempt{Kind: AttemptFirst, Bitcoin: &tx})
	return nil, OK
}

// newBatch makes the batch that pays outflows under an anchor, and fixes their
// fees.
func (x *execution) newBatch(chain, anchor string, vault Watch, os []Outflow, fees []fixed.Int) Batch {
	s := x.s
	b := Batch{ID: s.NextBatch, Kind: BatchPay, Chain: chain, Key: KeyECDSA1, Anchor: anchor, Vault: vault.Path.Role}
	s.NextBatch++
	for i, o := range os {
		o.Batch, o.Heir, o.Fee = b.ID, "", fees[i]
		o.Net = must(fixed.Sub(o.Gross, o.Fee))
		x.move(s.draw(o), Planned)
		b.Outflows = append(b.Outflows, o.ID)
	}
	return b
}

// Ethereum (spec: outflows §4, §7).

const transferGas = 21_000

// erc20Transfer is the selector of transfer(address,uint256).
var erc20Transfer = []byte{0xa9, 0x05, 0x9c, 0xbb}

func (x *execution) planEthereum(o Outflow) Code {
	s := x.s
	a, _ := s.Genesis.Asset(o.Asset)
	rate, ok := s.freshRate(Ethereum)
	if !ok {
		return Halted
	}
	c, _ := s.Genesis.Chain(Ethereum)
	gas := uint64(transferGas)
	if a.Token != "" {
		gas = a.Gas
	}
	feeCap := rate.Tip + 2*rate.Rate
	if feeCap > c.MaxRate {
		return FeeTooHigh
	}
	from, ok := s.senderOf(o)
	if !ok {
		return Halted
	}
	sender := s.Senders.at(from.Address)
	fee := fixed.Int{}
	switch o.Kind {
	case OutflowSweep:
		if a.isNative() { // out of the coin that it moves
			fee = must(fixed.Mul(fixed.New(gas), fixed.New(feeCap)))
			if !fee.Less(o.Gross) {
				return FeeTooHigh
			}
			break
		}
		// What was sent for gas bounds the price; it was exact when it was sent.
		funded, _ := sender.Float.Uint64()
		if feeCap = min(feeCap, funded/gas); feeCap < rate.Rate+1 {
			return FeeTooHigh
		}
	case OutflowGas:
	default:
		var code Code
		if fee, code = s.feeIn(a, must(fixed.Mul(fixed.New(gas), fixed.New(feeCap)))); code != OK {
			return code
		}
		if o.MaxFee.Less(fee) || !fee.Less(o.Gross) {
			return FeeTooHigh
		}
	}
	if o.Kind != OutflowSweep {
		cost, have := must(fixed.Mul(fixed.New(gas), fixed.New(feeCap))), sender.Float
		switch {
		case o.ownCoin(a):
			cost, have = o.Gross, s.nativeFree(a) // gross holds the gas
		case a.isNative():
			cost = must(fixed.Add(cost, o.Gross))
		}
		if have.Less(cost) {
			return NoLiquidity
		}
		if sender.Open >= maxSenderInFlight {
			return OutflowCap
		}
		sender.Open++
	}
	chainID := must(chainID(c))
	net := must(fixed.Sub(o.Gross, fee))
	tx := EthereumTx{
		ChainID: chainID, From: from.Address, Pub: from.Pub, Path: from.Path, Sequence: sender.Next,
		To: o.To, Value: net, Gas: gas, FeeCap: feeCap, Tip: min(rate.Tip, feeCap),
	}
	if a.Token != "" {
		to := must(address.ParseEthereum(o.To))
		tx.To, tx.Value, tx.Data = a.Token, fixed.Int{}, transferData(to, net)
	}
	sender.Next++
	s.Senders.put(sender.Address, sender)
	b := x.newBatch(Ethereum, EthereumAnchor(from.Address, tx.Sequence), from, []Outflow{o}, []fixed.Int{fee})
	x.openAttempt(b, Attempt{Kind: AttemptFirst, Ethereum: &tx})
	return OK
}

// EthereumAnchor names the resource that one transaction of a sender consumes.
func EthereumAnchor(sender string, sequence uint64) string {
	return fmt.Sprintf("%s:%d", sender, sequence)
}

// senderOf: payouts leave the hot address, gas for sweeps a funding address of
// its own, so that sweeps never hold up clients; a sweep leaves its deposit
// address.
func (s *State) senderOf(o Outflow) (Watch, bool) {
	switch o.Kind {
	case OutflowSweep:
		w, ok := s.Watched.get(Ethereum + "/" + o.From)
		return w, ok
	case OutflowGas:
		return s.Vault(Ethereum, address.RoleGas)
	}
	return s.Vault(Ethereum, address.RoleHot)
}

func transferData(to [20]byte, amount fixed.Int) []byte {
	b := append(slices.Clone(erc20Transfer), make([]byte, 64)...)
	copy(b[4+12:], to[:])
	raw := amount.Bytes()
	copy(b[4+64-len(raw):], raw)
	return b
}

func chainID(c ChainParam) (uint64, error) {
	var id uint64
	_, err := fmt.Sscanf(c.CAIP2, "eip155:%d", &id)
	return id, err
}

// Fees.

// freshRate is a chain's agreed fee rate, unless too few members said it lately.
func (s *State) freshRate(chain string) (FeeRate, bool) {
	r, ok := s.Rates.get(chain)
	return r, ok && s.Millis-r.Millis <= s.Params.FeeMaxAgeMillis
}

// gasCost is gas at the present fee cap, in wei.
func (s *State) gasCost(chain string, gas uint64) (fixed.Int, Code) {
	r, ok := s.freshRate(chain)
	if !ok {
		return fixed.Int{}, Halted
	}
	v, err := fixed.Mul(fixed.New(gas), fixed.New(r.Tip+2*r.Rate))
	if err != nil {
		return fixed.Int{}, Arith
	}
	return v, OK
}

// feeIn turns an amount of a chain's native asset into base units of a, at
// ledger prices, rounded up.
func (s *State) feeIn(a AssetParam, native fixed.Int) (fixed.Int, Code) {
	n, _ := s.Genesis.Native(a.Chain)
	if n.ID == a.ID {
		return native, OK
	}
	pn, ok1 := s.freshPrice(n.ID)
	pa, ok2 := s.freshPrice(a.ID)
	if !ok1 || !ok2 {
		return fixed.Int{}, PriceStale
	}
	var c fixed.Calc
	usd := c.MulDivCeil(native, pn.High, c.Pow10(n.Decimals))
	v := c.MulDivCeil(usd, c.Pow10(a.Decimals), pa.Low)
	if c.Err() != nil {
		return fixed.Int{}, Arith
	}
	return v, OK
}

// costIn is what a chain took for an outflow, in the outflow's asset.
func (s *State) costIn(o Outflow, native fixed.Int) (fixed.Int, Code) {
	a, _ := s.Genesis.Asset(o.Asset)
	return s.feeIn(a, native)
}

func (s *State) freshPrice(asset string) (Price, bool) {
	p, ok := s.Prices.get(asset)
	return p, ok && s.Millis-p.Millis <= s.Params.PriceMaxAge*1000
}

// Quote is what an outflow of gross base units would cost now, and what a
// client may safely sign as Max fee.
func (s *State) Quote(asset, to string, gross fixed.Int) (fee, suggested fixed.Int, code Code) {
	a, ok := s.Genesis.Asset(asset)
	if !ok {
		return fixed.Int{}, fixed.Int{}, UnknownPool
	}
	c, _ := s.Genesis.Chain(a.Chain)
	if a.Chain == Bitcoin {
		rate, ok := s.freshRate(Bitcoin)
		if !ok {
			return fixed.Int{}, fixed.Int{}, Halted
		}
		vsize := bitcoinVSize(1, 34, 22) // before the coins are known: one input, change, the largest payee
		if sats, ok := gross.Uint64(); ok {
			role := address.RoleMinter
			if s.boosts(Outflow{Asset: a.ID, Account: "any", Gross: gross}) {
				role = address.RolePool
			}
			if vault, ok := s.Vault(Bitcoin, role); ok {
				if tx, _, code := s.bitcoinPlan(vault, "", []recipient{{to, sats}}); code == OK {
					vsize = tx.vsize()
				}
			}
		}
		return fixed.New((vsize*rate.Rate + 999) / 1000), fixed.New((vsize*c.MaxRate + 999) / 1000), OK
	}
	gas := uint64(transferGas)
	if a.Token != "" {
		gas = a.Gas
	}
	cost, code := s.gasCost(a.Chain, gas)
	if code != OK {
		return fixed.Int{}, fixed.Int{}, code
	}
	if fee, code = s.feeIn(a, cost); code != OK {
		return fixed.Int{}, fixed.Int{}, code
	}
	suggested, code = s.feeIn(a, must(fixed.Mul(fixed.New(gas), fixed.New(c.MaxRate))))
	return fee, suggested, code
}
