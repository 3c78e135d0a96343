package api

import (
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/client"
)

// view is the ledger as one answer shows it.
type view struct{ *ledger.State }

func (v view) now() time.Time { return at(v.Millis) }

// at is ledger time for people.
func at(millis uint64) time.Time { return time.UnixMilli(int64(millis)).UTC() }

func atOrNil(millis uint64) *time.Time {
	if millis == 0 {
		return nil
	}
	t := at(millis)
	return &t
}

// age in whole seconds; a price from a clock ahead has none.
func (v view) age(millis uint64) uint64 {
	if v.Millis < millis {
		return 0
	}
	return (v.Millis - millis) / 1000
}

func (v view) account(id ledger.AccountID) (ledger.Account, bool) { return v.Accounts.Get(id) }

func (v view) has(id ledger.AccountID) bool { _, ok := v.account(id); return ok }

// result is the stored answer to a text of an account.
func (v view) result(account ledger.AccountID, id ledger.Hash) (ledger.Stored, bool) {
	a, ok := v.account(account)
	if !ok {
		return ledger.Stored{}, false
	}
	i := slices.IndexFunc(a.Results, func(r ledger.Stored) bool { return r.Text == id })
	if i < 0 {
		return ledger.Stored{}, false
	}
	return a.Results[i], true
}

// stored is a stored result as a request.
func (v view) stored(account ledger.AccountID, r ledger.Stored) client.Request {
	out := client.Request{
		ID: r.Text.String(), Account: account, Nonce: r.Nonce, Phase: phaseApplied,
		Code: string(r.Code), LogIndex: r.Height, Outflow: r.Outflow,
	}
	if o, ok := v.Outflows.Get(r.Outflow); ok {
		out.Status = v.outflowStatus(o)
	}
	return out
}

// request is what an accepted command came to.
func (v view) request(c *address.Command, id ledger.Hash, o Outcome) client.Request {
	if r, ok := v.result(accountID(c), id); ok {
		return v.stored(accountID(c), r)
	}
	return client.Request{ // pushed out by 16 later ones already
		ID: id.String(), Account: accountID(c), Nonce: c.Nonce, Phase: phaseApplied,
		Code: string(o.Code), LogIndex: o.Height,
	}
}

// keys are the master keys of the epoch in force.
func (v view) keys() []client.Key {
	keys := []client.Key{}
	for id, k := range v.Keys.All() {
		if len(k.Pub) == 0 {
			continue
		}
		scheme := address.KeyECDSA
		if k.Curve == "ed25519" {
			scheme = address.KeyEd25519
		}
		keys = append(keys, client.Key{Key: id, Scheme: scheme, MasterPub: hexOf(k.Pub), Epoch: k.Epoch})
	}
	return keys
}

// health sums up an account, with a line for every pool.
func (v view) health(a ledger.Account) client.Health {
	positions, h := v.PositionOf(a.ID)
	out := client.Health{
		Collateral: h.CollValue.String(), Debt: h.DebtValue.String(), Borrowable: h.Borrowable.String(),
		MaxLTV: small(h.MaxLTV), LiquidationLTV: small(h.LiquidationLTV), Positions: []client.Position{},
	}
	if h.Code != ledger.OK {
		out.Unknown = string(h.Code)
	}
	if h.HF != nil {
		exact, shown := h.HF.String(), ledger.DisplayHF(h.HF)
		out.HealthFactor, out.HealthFactorShown = &exact, &shown
	}
	if h.LTV != nil && h.Code == ledger.OK {
		ltv := small(*h.LTV)
		out.LTV = &ltv
		out.Warning = ltv*100 >= out.MaxLTV*80 && !h.DebtValue.IsZero()
	}
	for pool := range v.Pools.All() {
		i := slices.IndexFunc(positions, func(p ledger.PositionView) bool { return p.Pool == pool })
		at := ledger.PositionView{Pool: pool}
		if i >= 0 {
			at = positions[i]
		}
		out.Positions = append(out.Positions, v.position(a.ID, at))
	}
	return out
}

// repayAhead is how long the shown full repayment stays enough: time to send it
// and have it confirmed.
const repayAhead = 3600

func (v view) position(id ledger.AccountID, at ledger.PositionView) client.Position {
	asset, _ := v.Genesis.Asset(at.Pool)
	p := client.Position{
		Pool: at.Pool, Symbol: asset.Symbol, Decimals: asset.Decimals,
		Supplied: at.Supplied.String(), Collateral: at.Collateral.String(), Owed: at.Owed.String(),
		SuppliedValue: at.SuppliedValue.String(), OwedValue: at.OwedValue.String(),
		MaxBorrow: v.MaxBorrow(id, at.Pool).String(), MaxWithdraw: v.MaxWithdraw(id, at.Pool).String(),
	}
	if at.LiquidationPrice != nil {
		p.LiquidationPrice = at.LiquidationPrice.String()
	}
	if all, code := v.FullRepay(id, at.Pool, repayAhead); code == ledger.OK {
		p.FullRepay = all.String()
	}
	if m, code := v.Market(at.Pool); code == ledger.OK {
		p.SupplyAPY, p.BorrowAPY = m.SupplyAPY.String(), m.BorrowAPY.String()
	}
	if s, ok := v.Suspense.Get(id + "/" + at.Pool); ok && !s.Amount.IsZero() {
		p.Suspense = &client.Claims{Amount: s.Amount.String(), Reason: s.Reason}
	}
	return p
}

func purposeWord(p ledger.Purpose) string {
	switch p {
	case ledger.PurposeSupply:
		return client.Supply
	case ledger.PurposeRepay:
		return client.Repay
	}
	return "vault"
}

// addressOf is one of our addresses with its derivation.
func (v view) addressOf(w ledger.Watch) client.Address {
	c, _ := v.Genesis.Chain(w.Chain)
	return client.Address{
		Chain: w.Chain, CAIP2: c.CAIP2, Purpose: purposeWord(w.Purpose), Role: w.Path.Role,
		Address: w.Address, Key: w.Key, Path: hexOf(w.Path.Bytes()),
	}
}

// addresses are an account's own, once there are keys.
func (v view) addresses(id ledger.AccountID) []client.Address {
	var out []client.Address
	for _, c := range v.Genesis.Chains {
		for _, purpose := range []ledger.Purpose{ledger.PurposeSupply, ledger.PurposeRepay} {
			if w, ok := v.AddressOf(id, c.Name, purpose); ok {
				out = append(out, v.addressOf(w))
			}
		}
	}
	return out
}

// vault is where a chain's payouts come from, for quotes without a payee.
func (v view) vaults(chain string) []client.Address {
	var out []client.Address
	for _, role := range []string{address.RoleMinter, address.RolePool, address.RoleHot, address.RoleGas} {
		if w, ok := v.Vault(chain, role); ok {
			out = append(out, v.addressOf(w))
		}
	}
	return out
}

// quote is the fee of a payout now. to "" stands for any address.
func (v view) quote(asset, to string, gross fixed.Int) (fee, suggested fixed.Int, code ledger.Code) {
	a, ok := v.Genesis.Asset(asset)
	if !ok {
		return fee, suggested, ledger.UnknownPool
	}
	if to == "" {
		own := v.vaults(a.Chain)
		if len(own) == 0 {
			return fee, suggested, ledger.Halted
		}
		to = own[0].Address
	}
	return v.Quote(asset, to, gross)
}

func (v view) price(asset string) *client.Price {
	p, ok := v.Prices.Get(asset)
	if !ok || p.Millis == 0 {
		return nil
	}
	out := &client.Price{
		Low: p.Low.String(), High: p.High.String(), Closed: at(p.Millis), Age: v.age(p.Millis), Round: p.Round, Reporters: []string{}, AlertSince: atOrNil(p.Alert),
		Stale: v.age(p.Millis) > v.Params.PriceMaxAge, Suspect: v.Suspected(p),
	}
	if out.Suspect {
		out.SuspectSince = atOrNil(p.Suspect)
	}
	r, _ := v.Rounds.Get(asset)
	for _, x := range r.Reports {
		out.Reporters = append(out.Reporters, v.name(x.Member))
	}
	if bps, ok := p.FromTWAP(); ok {
		out.TWAP, out.FromTWAP = p.TWAP.String(), &bps
	}
	return out
}

// names are members by name; one that left long ago is shown by its id.
func (v view) names(ids []ledger.MemberID) []string {
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		out = append(out, v.name(id))
	}
	return out
}

func (v view) name(id ledger.MemberID) string {
	for i := len(v.Epochs) - 1; i >= 0; i-- {
		if seat := v.Epochs[i].Seat(id); seat >= 0 {
			return v.Epochs[i].Members[seat].Name
		}
	}
	for _, o := range v.Seating() { // one that is to come
		if o.Member.ID == id {
			return o.Member.Name
		}
	}
	return id.String()
}

// newest is the outflow that v has beyond before, if any.
func (v view) newest(before view) (ledger.Outflow, bool) {
	if v.NextOutflow == before.NextOutflow {
		return ledger.Outflow{}, false
	}
	return v.Outflows.Get(before.NextOutflow)
}

// small is a ratio in bps; beyond 2⁶⁴ all are alike.
func small(n fixed.Int) uint64 {
	u, ok := n.Uint64()
	if !ok {
		return 1<<63 - 1
	}
	return u
}

func minus(a, b fixed.Int) fixed.Int {
	d, err := fixed.Sub(a, b)
	if err != nil {
		return fixed.Int{}
	}
	return d
}

// plus is a+b, or the largest number there is.
func plus(a, b fixed.Int) fixed.Int {
	n, err := fixed.Add(a, b)
	if err != nil {
		return fixed.Max
	}
	return n
}
