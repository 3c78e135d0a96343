package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/chains/chaintest"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// auditor keeps books of its own. It reads the chains, the requests as their
// signers sent them, and the master key's derivation; from the ledger it takes
// what it judges and nothing it judges by (spec: outflows §10, oracle).
type auditor struct {
	s    *sim
	asks map[string][]ask // by destination
	bad  map[ledger.Hash]bool
	keys map[string][]byte         // public keys of the first epoch that had any
	own  map[string]ledger.Purpose // "chain/address" of ours

	txs      map[string]map[string]*tx // chain → id → transaction of ours
	deposits map[string]map[string]ledger.Payment
	ever     map[string]ledger.Payment // deposits that some best chain had

	outflows map[string][]uint64  // destination → outflows of the ledger
	credited map[string]bool      // inflow ids
	in, out  map[string]fixed.Int // by asset: credited, and gone for good
	lost     map[string]fixed.Int // what the chain took beyond what clients paid: change too small to keep, bumps
	fees     map[string]fixed.Int // Ethereum: what each transaction cost
	taken    map[string]fixed.Int // "address/asset" of a vault on Ethereum: what votes booked of what strangers sent there
	coinsIn  []coinIn             // on Bitcoin at a vault: floats, and what votes booked
}

type coinIn struct {
	millis uint64 // ledger time
	amount fixed.Int
}

// ask is a signed request for coins.
type ask struct {
	account, pool, to string
	gross, fee        fixed.Int // fee: the most that is taken of it
	all               bool      // gross is not in the text
	outflow           uint64    // that the ledger made of it; 0: none
}

// tx is a transaction that consumed something of ours.
type tx struct {
	pays []ledger.Payment
	fee  fixed.Int // where inputs have values
}

func newAuditor(s *sim) *auditor {
	return &auditor{
		s: s, asks: map[string][]ask{}, keys: map[string][]byte{}, bad: map[ledger.Hash]bool{}, own: map[string]ledger.Purpose{},
		txs: map[string]map[string]*tx{}, deposits: map[string]map[string]ledger.Payment{}, ever: map[string]ledger.Payment{},
		outflows: map[string][]uint64{}, credited: map[string]bool{}, in: map[string]fixed.Int{}, out: map[string]fixed.Int{}, lost: map[string]fixed.Int{}, taken: map[string]fixed.Int{},
	}
}

func (a *auditor) asked(k ask) { a.asks[k.to] = append(a.asks[k.to], k) }

// fund derives every address of ours from the dealer's key, once there is one.
func (a *auditor) fund() {
	k, _ := a.s.reference.Keys.Get(ledger.KeyECDSA1)
	master := a.s.dealer.public(ledger.Generation{Key: k.ID, Epoch: k.Epoch, Try: k.Try})
	own := func(p address.Path, why ledger.Purpose) {
		c := must(address.Derive(address.KeyECDSA, k.ID, master, p))
		text := must(address.P2WPKH(network, c.Pub))
		if p.Chain == ledger.Ethereum {
			text = address.EthereumAddress(must(address.EthereumOf(c.Pub)))
		}
		a.own[p.Chain+"/"+text] = why
	}
	own(address.Path{Chain: ledger.Bitcoin, Role: address.RoleMinter}, ledger.PurposeVault)
	own(address.Path{Chain: ledger.Bitcoin, Role: address.RolePool}, ledger.PurposeVault)
	own(address.Path{Chain: ledger.Ethereum, Role: address.RoleHot}, ledger.PurposeVault)
	own(address.Path{Chain: ledger.Ethereum, Role: address.RoleGas}, ledger.PurposeVault)
	for _, c := range a.s.clients {
		for chain, role := range map[string]string{ledger.Bitcoin: address.RoleMinter, ledger.Ethereum: address.RoleDeposit} {
			own(address.Path{Chain: chain, Role: role, Subaccount: address.DepositSubaccount(c.id)}, ledger.PurposeSupply)
			own(address.Path{Chain: chain, Role: role, Subaccount: address.RepaySubaccount(c.id)}, ledger.PurposeRepay)
		}
	}
}

// chains judges the best chains as they stand: every coin of ours that left was
// asked for, and no request was paid more than once.
func (a *auditor) chains() error {
	paid := map[string][]fixed.Int{} // destination → amounts
	for _, c := range []struct {
		name string
		fake *chaintest.Fake
	}{{ledger.Bitcoin, a.s.btc}, {ledger.Ethereum, a.s.eth}} {
		a.read(c.name, c.fake.Payments())
		if c.name == ledger.Ethereum {
			a.fees = c.fake.Fees()
		}
		for id, t := range a.txs[c.name] {
			for _, p := range t.pays {
				if why, ours := a.own[c.name+"/"+p.To]; ours {
					if c.name == ledger.Bitcoin && why != ledger.PurposeVault {
						return fmt.Errorf("change of %s went to a client's address %s", id, p.To)
					}
					continue
				}
				if len(a.asks[p.To]) == 0 {
					return fmt.Errorf("%s paid %s %s to %s, which nobody asked for", id, p.Amount, p.Asset, p.To)
				}
				paid[p.To] = append(paid[p.To], p.Amount)
			}
		}
	}
	for to, amounts := range paid {
		if err := a.judge(to, amounts); err != nil {
			return err
		}
	}
	return nil
}

// read takes one chain's payments apart.
func (a *auditor) read(chain string, pays []chaintest.Payment) {
	values := map[string]fixed.Int{} // of outpoints
	txs, deposits := map[string]*tx{}, map[string]ledger.Payment{}
	index := map[string]int{}
	for _, p := range pays {
		out := fmt.Sprintf("%s:%d", p.TxID, index[p.TxID])
		index[p.TxID]++
		values[out] = p.Amount
		if len(p.Spends) == 0 {
			deposits[out] = p.Payment
			a.ever[out] = p.Payment
			continue
		}
		t := txs[p.TxID]
		if t == nil {
			t = &tx{}
			for _, in := range p.Spends {
				t.fee = add(t.fee, values[in])
			}
			txs[p.TxID] = t
		}
		t.pays = append(t.pays, p.Payment)
		if chain == ledger.Bitcoin {
			t.fee = must(fixed.Sub(t.fee, p.Amount))
		}
	}
	a.txs[chain], a.deposits[chain] = txs, deposits
}

// judge: what one destination received is at most what was asked for it, and
// each amount is that of an outflow of its own.
func (a *auditor) judge(to string, amounts []fixed.Int) error {
	var most, sum fixed.Int
	for _, k := range a.asks[to] {
		if k.outflow != 0 {
			most = add(most, k.gross)
		}
	}
	owed := a.nets(to)
	for _, n := range amounts {
		sum = add(sum, n)
		i := slices.Index(owed, n)
		if i < 0 {
			return fmt.Errorf("%s received %s: paid twice, or never owed; owed once each: %s", to, amounts, a.nets(to))
		}
		owed = slices.Delete(owed, i, i+1)
	}
	if most.Less(sum) {
		return fmt.Errorf("%s received %s of %s that was asked for", to, sum, most)
	}
	return nil
}

// nets are the amounts that the ledger owes or owed to a destination.
func (a *auditor) nets(to string) []fixed.Int {
	var ns []fixed.Int
	for _, id := range a.outflows[to] {
		if o, _ := a.s.reference.Outflows.Get(id); o.State != ledger.Refunded {
			ns = append(ns, o.Net)
		}
	}
	return ns
}

// command judges what a command did, on the reference.
func (a *auditor) command(raw []byte, r ledger.Result) error {
	var c ledger.Command
	if ledger.Unmarshal(raw, &c) == nil && c.Intent != nil {
		a.s.rep.Intents++
		if r.Code != ledger.OK {
			a.s.rep.Refused++
		}
		if a.bad[hashOf(raw)] && r.Code == ledger.OK {
			return fmt.Errorf("accepted what must be refused: %q", c.Intent.Text)
		}
	}
	for _, e := range r.Events {
		if err := a.event(e); err != nil {
			return err
		}
	}
	if len(r.Events) == 0 {
		return nil
	}
	return a.books()
}

func (a *auditor) event(e ledger.Event) error {
	st := a.s.reference
	switch e.Name {
	case "outflow":
		o, _ := st.Outflows.Get(e.Outflow)
		a.s.rep.Outflows++
		if o.Account != "" {
			a.outflows[o.To] = append(a.outflows[o.To], o.ID)
			return a.accepted(o)
		}
	case "attempt":
		if b, _ := st.Batches.Get(e.Batch); b.Kind == ledger.BatchPay {
			if len(st.PassedOver(b.Newest())) > 0 {
				a.s.rep.PassedOver++
			}
			switch b.Newest().Kind {
			case ledger.AttemptRetry:
				a.s.rep.Retries++
			case ledger.AttemptBump:
				a.s.rep.Bumps++
			case ledger.AttemptReprice:
				a.s.rep.Repriced++
			case ledger.AttemptCancel:
				a.s.rep.Cancels++
			}
		}
	case "proposal-" + ledger.DecidedDone:
		a.s.rep.Votes++
	case "blame":
		a.s.rep.Blamed++
		return a.blamed(e)
	case "credited":
		if e.Asset == "eth" {
			return a.creditNative(e)
		}
		return a.credit(e)
	case "float", "coin-booked":
		return a.booked(e)
	case "reversed":
		return a.reverse(e)
	case "outflow-state":
		switch e.Note {
		case ledger.Paid.String():
			a.s.rep.Paid++
			return a.paid(e.Outflow)
		case ledger.UnpaidProven.String():
			return a.unpaid(e.Outflow, e.Batch)
		case ledger.Queued.String():
			a.s.rep.Requeued++
		case ledger.Refunded.String():
			a.s.rep.Refunded++
		}
	case "epoch":
		return a.flipped()
	case "epoch-dropped":
		a.s.rep.Dropped++
	case "short":
		a.s.rep.Short++
	case "insolvent":
		if a.s.cfg.robbed {
			return nil
		}
		return fmt.Errorf("event %s: %s: %s", e.Name, e.Asset, e.Note) // nobody robbed us
	case "hold":
		b, _ := st.Batches.Get(e.Batch)
		if _, _, silent := a.silent(b); !silent {
			return fmt.Errorf("event hold: %s", e.Note)
		}
		a.s.rep.Holds++
		for _, id := range b.Outflows { // the next time it works
			o, _ := st.Outflows.Get(id)
			a.s.eth.Mute(o.To, false)
		}
	case "unattributed":
		if extra := a.nobodys(e.Asset); extra.Less(fixed.MustParse(e.Amount)) {
			return fmt.Errorf("%s of %s are said to be nobody's, %s are", e.Amount, e.Asset, extra)
		}
	case "keygen-disagreement", "broken":
		return fmt.Errorf("event %s: %s", e.Name, e.Note)
	}
	return nil
}

// blamed: nobody but a traitor ever is.
func (a *auditor) blamed(e ledger.Event) error {
	who, _, _ := strings.Cut(e.Note, " ")
	for _, m := range a.s.members {
		if m.id.String() == who && m.liar {
			return nil
		}
	}
	return fmt.Errorf("%s is blamed and honest: %s", who, e.Note)
}

// flipped: whatever epoch it is, the keys are those of the first.
func (a *auditor) flipped() error {
	st := a.s.reference
	a.s.rep.Flips++
	for id, k := range st.Keys.All() {
		if a.keys[id] == nil {
			a.keys[id] = k.Pub
		}
		if !bytes.Equal(a.keys[id], k.Pub) {
			return fmt.Errorf("key %s became another one in epoch %d", id, st.Epoch().Number)
		}
	}
	if info, _ := st.Infos.Get(st.Epoch().Number); info.Kind == ledger.NextRollback {
		a.s.rep.Rollbacks++
	}
	for _, e := range st.Epochs[:len(st.Epochs)-1] {
		if e.Number >= st.Epoch().Number {
			return fmt.Errorf("epoch %d comes after %d", st.Epoch().Number, e.Number)
		}
	}
	return nil
}

// accepted: an outflow is what a request asked for, and each request makes one.
func (a *auditor) accepted(o ledger.Outflow) error {
	for i, k := range a.asks[o.To] {
		if k.outflow == 0 && k.account == o.Account && k.pool == o.Asset && k.fee == o.MaxFee && (k.all || k.gross == o.Gross) {
			a.asks[o.To][i].gross, a.asks[o.To][i].outflow = o.Gross, o.ID
			return nil
		}
	}
	return fmt.Errorf("outflow %d of %s %s to %s was not asked for", o.ID, o.Gross, o.Asset, o.To)
}

// credit: a deposit is credited once, while the chain shows it, in full.
func (a *auditor) credit(e ledger.Event) error {
	id, reason, _ := strings.Cut(e.Note, " ")
	in, _ := a.s.reference.Inflows.Get(id)
	seen, ok := a.deposits[in.Chain][id]
	if was, ever := a.ever[id]; !ok && ever && in.Chain == ledger.Bitcoin {
		seen, ok = was, true // undone while the last word about it was on its way: taken back by the time of rest
	}
	switch {
	case a.credited[id]:
		return fmt.Errorf("inflow %s is credited twice", id)
	case !ok:
		return fmt.Errorf("inflow %s is credited and not on the chain", id)
	case seen.To != in.Address || seen.Asset != e.Asset || seen.Amount.String() != e.Amount:
		return fmt.Errorf("inflow %s of %s %s is credited as %s %s", id, seen.Amount, seen.Asset, e.Amount, e.Asset)
	}
	a.credited[id] = true
	a.in[e.Asset] = add(a.in[e.Asset], seen.Amount)
	a.s.rep.Credited++
	if reason != "" {
		a.s.rep.Suspended++
	}
	return nil
}

// reverse: a deposit is taken back once, and only while the chain does not show
// it.
func (a *auditor) reverse(e ledger.Event) error {
	id := e.Note
	switch _, shown := a.deposits[ledger.Bitcoin][id]; {
	case shown:
		return fmt.Errorf("inflow %s is taken back and on the chain", id)
	case !a.credited[id]:
		return fmt.Errorf("inflow %s is taken back and was not credited", id)
	}
	delete(a.credited, id)
	a.in[e.Asset] = must(fixed.Sub(a.in[e.Asset], fixed.MustParse(e.Amount)))
	a.s.rep.Reversed++
	return nil
}

// paid: the ledger says so only of what the chain shows.
func (a *auditor) paid(id uint64) error {
	o, _ := a.s.reference.Outflows.Get(id)
	asset, _ := a.s.genesis.Asset(o.Asset)
	t, ok := a.txs[asset.Chain][o.TxID]
	if !ok || !slices.Contains(t.pays, ledger.Payment{Asset: o.Asset, To: o.To, Amount: o.Net}) {
		return fmt.Errorf("outflow %d is PAID by %s, which does not pay it", id, o.TxID)
	}
	if o.Kind == ledger.OutflowRecoup {
		a.s.rep.Recoups++
	}
	if o.Account == "" {
		if asset.Chain == ledger.Bitcoin { // between vaults of ours: the fee alone is gone
			a.out["btc"] = add(a.out["btc"], t.fee)
			a.lost["btc"] = add(a.lost["btc"], t.fee)
		}
		return nil
	}
	if o.Boosted {
		a.s.rep.Boosted++
	}
	a.out[o.Asset] = add(a.out[o.Asset], o.Net)
	if o.Asset == "btc" {
		fee := a.part(id, o.Batch, t.fee)
		a.out["btc"] = add(a.out["btc"], fee)
		if o.Fee.Less(fee) {
			a.lost["btc"] = add(a.lost["btc"], must(fixed.Sub(fee, o.Fee)))
		}
	}
	if o.Asset == "eth" { // the gas is paid in the coin itself
		a.s.rep.NativePaid++
		a.gone("eth", a.fees[o.TxID])
	}
	i := slices.IndexFunc(a.asks[o.To], func(k ask) bool { return k.outflow == id })
	if k := a.asks[o.To][i]; add(o.Net, k.fee).Less(k.gross) {
		return fmt.Errorf("outflow %d of %s paid %s: more than the fee of %s that was signed", id, k.gross, o.Net, k.fee)
	}
	return nil
}

// unpaid: the ledger says so only while the chain shows a transaction that
// consumed the anchor and does not pay. What it cost on Bitcoin is gone.
func (a *auditor) unpaid(id, batch uint64) error {
	o, _ := a.s.reference.Outflows.Get(id)
	asset, _ := a.s.genesis.Asset(o.Asset)
	t, ok := a.txs[asset.Chain][o.TxID]
	if ok && slices.ContainsFunc(t.pays, func(p ledger.Payment) bool { return p.To == o.To }) {
		return fmt.Errorf("outflow %d is UNPAID_PROVEN by %s, which pays %s", id, o.TxID, o.To)
	}
	if asset.Chain == ledger.Bitcoin {
		if !ok {
			return fmt.Errorf("outflow %d is UNPAID_PROVEN by %s, which is not on the chain", id, o.TxID)
		}
		a.gone("btc", a.part(id, batch, t.fee))
	}
	if o.Asset == "eth" && o.Account != "" {
		a.gone("eth", a.fees[o.TxID])
	}
	return nil
}

// gone is what a chain took and no client was charged for beforehand.
func (a *auditor) gone(asset string, fee fixed.Int) {
	a.out[asset] = add(a.out[asset], fee)
	a.lost[asset] = add(a.lost[asset], fee)
}

// silent finds the transaction of a batch that the chain shows to have succeeded
// without paying: it is in no payment, and cost its fee.
func (a *auditor) silent(b ledger.Batch) (txid string, fee fixed.Int, ok bool) {
	return a.s.eth.Silent(b.Anchor)
}

// sent is what outsiders sent to an address of an asset, up to a height.
func (a *auditor) sent(chain, to, asset string, height uint64) (sum fixed.Int) {
	for _, p := range a.s.chain(chain).Payments() {
		if len(p.Spends) == 0 && p.To == to && p.Asset == asset && p.Height <= height {
			sum = add(sum, p.Amount)
		}
	}
	return sum
}

// creditNative: of its own coin an address is credited with what it ever received, by
// the height that the credit names, and no more.
func (a *auditor) creditNative(e ledger.Event) error {
	id, reason, _ := strings.Cut(e.Note, " ")
	in, _ := a.s.reference.Inflows.Get(id)
	from, _ := a.s.reference.Senders.Get(in.Address)
	if sent := a.sent(ledger.Ethereum, in.Address, "eth", in.Height); sent != from.Received || a.credited[id] {
		return fmt.Errorf("inflow %s: %s were sent to %s by %d, %s are counted", id, sent, in.Address, in.Height, from.Received)
	}
	a.credited[id] = true
	a.in["eth"] = add(a.in["eth"], fixed.MustParse(e.Amount))
	a.s.rep.Credited++
	if reason != "" {
		a.s.rep.Suspended++
	}
	return nil
}

// booked: what a vote books was sent to a vault by somebody, and is booked once.
func (a *auditor) booked(e ledger.Event) error {
	amount := fixed.MustParse(e.Amount)
	if e.Asset == "btc" {
		a.coinsIn = append(a.coinsIn, coinIn{a.s.reference.Millis, amount})
		if _, genesis := a.own[ledger.Bitcoin+"/"+e.Note]; genesis {
			return nil
		}
		p, ok := a.deposits[ledger.Bitcoin][e.Note]
		if why := a.own[ledger.Bitcoin+"/"+p.To]; !ok || why != ledger.PurposeVault || p.Amount != amount {
			return fmt.Errorf("%s of coin %s is booked, which is %+v", amount, e.Note, p)
		}
		a.s.rep.Booked++
		if e.Name == "coin-booked" {
			a.in["btc"] = add(a.in["btc"], amount)
		}
		return nil
	}
	hot, _ := a.s.reference.Vault(ledger.Ethereum, address.RoleHot)
	asset, at := "eth", e.Note
	if e.Name == "coin-booked" {
		asset, at = e.Asset, hot.Address
		a.in[asset] = add(a.in[asset], amount)
	} else if v, _ := a.s.reference.Senders.Get(at); v.Booked && amount == floatWei && a.taken[at+"/eth"].IsZero() {
		a.taken[at+"/eth"] = amount // of genesis
		return nil
	}
	a.taken[at+"/"+asset] = add(a.taken[at+"/"+asset], amount)
	a.s.rep.Booked++
	if sent, taken := a.sent(ledger.Ethereum, at, asset, 1<<62), a.taken[at+"/"+asset]; sent.Less(taken) {
		return fmt.Errorf("%s of %s are booked at %s, %s were sent there", taken, asset, at, sent)
	}
	return nil
}

// gifts is what outsiders sent to the vaults on Ethereum.
func (a *auditor) gifts(asset string) (sum fixed.Int) {
	for _, role := range []string{address.RoleHot, address.RoleGas} {
		v, _ := a.s.reference.Vault(ledger.Ethereum, role)
		sum = add(sum, a.sent(ledger.Ethereum, v.Address, asset, 1<<62))
	}
	return sum
}

// nobodys is what outsiders sent to the vaults and was not booked when the newest
// balance was asked for; on Bitcoin a branch may have had it that is gone since.
func (a *auditor) nobodys(asset string) (sum fixed.Int) {
	if asset != "btc" {
		return must(fixed.Sub(a.gifts(asset), a.allTaken(asset)))
	}
	for _, p := range a.ever {
		if a.own[ledger.Bitcoin+"/"+p.To] == ledger.PurposeVault {
			sum = add(sum, p.Amount)
		}
	}
	row, _ := a.s.reference.Solvency.Get("btc")
	for _, c := range a.coinsIn {
		if c.millis < row.Newest.Asked {
			sum = must(fixed.Sub(sum, c.amount))
		}
	}
	return sum
}

func (a *auditor) allTaken(asset string) (sum fixed.Int) {
	for _, role := range []string{address.RoleHot, address.RoleGas} {
		v, _ := a.s.reference.Vault(ledger.Ethereum, role)
		sum = add(sum, a.taken[v.Address+"/"+asset])
	}
	return sum
}

// part is an outflow's share of what its transaction cost: even, the remainder to
// the first of the batch.
func (a *auditor) part(id, batch uint64, fee fixed.Int) fixed.Int {
	b, _ := a.s.reference.Batches.Get(batch)
	total, _ := fee.Uint64()
	n := uint64(len(b.Outflows))
	part := total / n
	if b.Outflows[0] == id {
		part += total % n
	}
	return fixed.New(part)
}

// books: whatever was credited is cash, reserved or in suspense, or left on a
// chain, to the unit.
func (a *auditor) books() error {
	if a.s.cfg.robbed {
		return nil // what a thief took is booked as a loss, and no payment of ours shows it
	}
	for _, pool := range pools {
		have := add(a.held(pool), a.out[pool])
		if a.in[pool] != have {
			return fmt.Errorf("%s: credited %s, held and gone %s", pool, a.in[pool], have)
		}
		// What change too small to keep, or gas in the pool's own coin, cost the pool
		// beyond its treasury is the one deficit there may be (spec: outflows §6.4 U4, §7).
		p, _ := a.s.reference.Pools.Get(pool)
		if a.lost[pool].Less(p.Deficit) {
			return fmt.Errorf("%s: deficit of %s, fees that nobody paid %s", pool, p.Deficit, a.lost[pool])
		}
	}
	return nil
}

// held is what the ledger says it holds of an asset.
func (a *auditor) held(pool string) fixed.Int {
	p, _ := a.s.reference.Pools.Get(pool)
	sum := must(fixed.Sub(add(p.Cash, p.Reserved), p.Missing))
	for key, e := range a.s.reference.Suspense.All() {
		if strings.HasSuffix(key, "/"+pool) {
			sum = add(sum, e.Amount)
		}
	}
	return sum
}

// atRest says what is not at rest, or not right at rest.
func (a *auditor) atRest() error {
	st := a.s.reference
	if st.OutflowsHalt != "" {
		return fmt.Errorf("halted: %s", st.OutflowsHalt)
	}
	if n, q := st.Live.Len(), st.Queue.Len(); n+q > 0 || st.Opening != nil {
		for id := range st.Live.All() {
			b, _ := st.Batches.Get(id)
			return fmt.Errorf("%d batches open (%d of kind %d, attempt %d, spent %v), %d outflows queued", n, id, b.Kind, b.Newest().K, b.Spent != nil, q)
		}
		return fmt.Errorf("%d outflows queued", q)
	}
	for to := range a.outflows {
		owed, got := a.received(to)
		slices.SortFunc(owed, fixed.Int.Cmp)
		slices.SortFunc(got, fixed.Int.Cmp)
		if !slices.Equal(owed, got) {
			return fmt.Errorf("%s received %s, PAID %s", to, got, owed)
		}
	}
	return errors.Join(a.custody(ledger.Bitcoin, "btc"), a.custody(ledger.Ethereum, "usdt.eth"), a.floats(), a.coins())
}

// received is what the ledger calls PAID to a destination, and what the chains show.
func (a *auditor) received(to string) (owed, got []fixed.Int) {
	for _, id := range a.outflows[to] {
		if o, _ := a.s.reference.Outflows.Get(id); o.State == ledger.Paid {
			owed = append(owed, o.Net)
		}
	}
	for _, c := range []string{ledger.Bitcoin, ledger.Ethereum} {
		for _, t := range a.txs[c] {
			for _, p := range t.pays {
				if p.To == to {
					got = append(got, p.Amount)
				}
			}
		}
	}
	return owed, got
}

// tally counts, however the run ended, payouts that are on a chain too often, and those
// that the ledger has done with and no chain shows.
func (a *auditor) tally() {
	for to := range a.outflows {
		owed, got := a.received(to)
		for _, n := range got {
			if i := slices.Index(owed, n); i >= 0 {
				owed = slices.Delete(owed, i, i+1)
			} else if a.s.err == nil || !slices.Contains(a.nets(to), n) {
				a.s.rep.Twice++ // in the middle of things it may be mined and not PAID yet
			}
		}
		a.s.rep.Vanished += len(owed)
	}
}

// custody: what our addresses hold on the chain is what the books hold, and
// deposits that are on their way or worth less than their spending.
func (a *auditor) custody(chain, asset string) error {
	var have fixed.Int
	for at := range a.own {
		if addr, ok := strings.CutPrefix(at, chain+"/"); ok {
			have = add(have, a.s.chain(chain).Balance(addr, asset))
		}
	}
	want := a.held(asset)
	if chain == ledger.Ethereum {
		want = add(want, must(fixed.Sub(a.gifts(asset), a.allTaken(asset))))
	}
	for id := range a.credited {
		in, _ := a.s.reference.Inflows.Get(id)
		if in.Asset != asset {
			continue
		}
		if _, shown := a.deposits[chain][id]; in.Chain == chain && !shown {
			return fmt.Errorf("inflow %s is credited and in no block", id)
		}
	}
	if asset == "btc" {
		want = add(want, fixed.New(a.s.reference.Two.Float))
		for id, p := range a.deposits[chain] {
			if _, known := a.s.reference.VaultCoins.Get(id); a.own[chain+"/"+p.To] == ledger.PurposeVault && !known {
				want = add(want, p.Amount)
			}
		}
	}
	for id, p := range a.deposits[chain] {
		if why, ours := a.own[chain+"/"+p.To]; !ours || p.Asset != asset || why == ledger.PurposeVault {
			continue // floats are not owed to clients
		}
		in, _ := a.s.reference.Inflows.Get(id)
		if !a.s.reference.Counted(id) {
			return fmt.Errorf("deposit %s of %s %s is not counted", id, p.Amount, p.Asset)
		}
		if !a.credited[id] {
			want = add(want, p.Amount)
		}
		if in.State == ledger.InflowSweeping {
			return fmt.Errorf("deposit %s is being swept", id)
		}
	}
	if have != want {
		return fmt.Errorf("%s: addresses hold %s, books %s", asset, have, want)
	}
	return nil
}

// floats: each Ethereum account's native coins are booked to the wei: as float, as the
// pool's at the hot address and where they wait to be swept, or as nobody's.
func (a *auditor) floats() error {
	hot, _ := a.s.reference.Vault(ledger.Ethereum, address.RoleHot)
	pool, _ := a.s.reference.Pools.Get("eth")
	for addr, s := range a.s.reference.Senders.All() {
		want := add(s.Float, s.Unswept)
		if sent := a.sent(ledger.Ethereum, addr, "eth", 1<<62); a.own[ledger.Ethereum+"/"+addr] == ledger.PurposeVault {
			want = add(want, must(fixed.Sub(sent, a.taken[addr+"/eth"])))
		} else {
			want = add(want, must(fixed.Sub(sent, s.Received))) // too little to count
		}
		if addr == hot.Address {
			want = add(want, must(fixed.Sub(a.held("eth"), pool.Unswept)))
		}
		if have := a.s.eth.Balance(addr, "eth"); have != want || !s.Due.IsZero() {
			return fmt.Errorf("sender %s holds %s wei, booked %s, %s due", addr, have, want, s.Due)
		}
	}
	return nil
}

// coins: the ledger's coins are the unspent outputs of ours, no more and no less.
func (a *auditor) coins() error {
	sum := map[string]fixed.Int{}
	for _, c := range a.s.reference.Coins.All() {
		sum[c.Address] = add(sum[c.Address], fixed.New(c.Sats))
	}
	for id, p := range a.deposits[ledger.Bitcoin] { // what is worth less than its spending is no coin
		if in, ok := a.s.reference.Inflows.Get(id); ok && in.State == ledger.InflowSmall {
			sum[in.Address] = add(sum[in.Address], p.Amount)
		}
		if _, known := a.s.reference.VaultCoins.Get(id); a.own[ledger.Bitcoin+"/"+p.To] == ledger.PurposeVault && !known {
			sum[p.To] = add(sum[p.To], p.Amount) // nobody's
		}
	}
	for at := range a.own {
		if addr, ok := strings.CutPrefix(at, ledger.Bitcoin+"/"); ok && sum[addr] != a.s.btc.Balance(addr, "btc") {
			return fmt.Errorf("%s holds %s, coins of %s", addr, a.s.btc.Balance(addr, "btc"), sum[addr])
		}
	}
	return nil
}
