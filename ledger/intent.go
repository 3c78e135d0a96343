package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// storedResults is how many answers an account keeps for repeated requests.
const storedResults = 16

// multisigExpirySeconds: people who sign together need longer.
const multisigExpirySeconds = 86_400

// refusedDestinationMillis is for how long an address that reverted a payout is
// refused for the account.
const refusedDestinationMillis = 86_400_000

// Grammar is how requests to this cluster are spelled.
func (s *State) Grammar() *address.Grammar { return s.Genesis.Grammar() }

// Grammar is how requests to this cluster are spelled.
func (g Genesis) Grammar() *address.Grammar {
	gr := &address.Grammar{Brand: g.Brand, Wallets: g.Wallets, Pools: map[string]address.Asset{}}
	for _, c := range g.Chains {
		gr.Chains = append(gr.Chains, c.CAIP2)
	}
	for _, p := range g.Pools {
		a, _ := g.Asset(p.Asset)
		c, _ := g.Chain(a.Chain)
		gr.Pools[p.Asset] = address.Asset{Symbol: a.Symbol, Decimals: a.Decimals, Chain: c.CAIP2}
	}
	return gr
}

// RequestID is what a request is known by: the hash of its text, whatever
// signature comes with it.
func RequestID(text string) Hash { return sha256.Sum256([]byte(text)) }

// request is an Intent that passed the prelude.
type request struct {
	*address.Command
	grammar *address.Grammar // that it was read by
	id      Hash
	account AccountID
	refused bool // the destination, found while parsing
}

// opens reports whether the request makes its account.
func (r request) opens() bool {
	return r.Action == address.ActionOpenAccount || r.Action == address.ActionOpenLoan
}

// intent applies a client's request. The nonce is used up as soon as signature,
// cluster and expiry pass and it is the expected one, whatever follows: a
// refused borrow that stayed live could succeed later at a price its signer did
// not mean (spec: lending §5).
func (x *execution) intent(in *Intent) Code {
	r, stored, code := x.prelude(in)
	if stored != nil {
		return stored.Code
	}
	if code != OK {
		return code
	}
	if !r.opens() {
		acc := x.s.Accounts.at(r.account)
		acc.Nonce++
		x.s.putActive(acc)
	}
	first := x.s.NextOutflow
	if code = x.try(func(x *execution) Code { return x.operate(r) }); code != OK {
		x.refuse(r, code)
	}
	acc := x.s.Accounts.at(r.account)
	if len(acc.Wallets) == 0 { // a refused Open loan
		return code
	}
	res := Stored{Nonce: r.Nonce, Text: r.id, Code: code, Height: x.s.Height + 1}
	if x.s.NextOutflow > first {
		res.Outflow = first
	}
	if len(acc.Results) == storedResults {
		acc.Results = acc.Results[1:]
	}
	acc.Results = append(slices.Clone(acc.Results), res)
	x.s.Accounts.put(acc.ID, acc)
	return code
}

// prelude checks what comes before the nonce is used up. It changes nothing.
func (x *execution) prelude(in *Intent) (request, *Stored, Code) {
	s := x.s
	r, code := s.parse(in.Text)
	if code != OK {
		return r, nil, code
	}
	if r.Cluster != s.ClusterName() {
		return r, nil, WrongCluster
	}
	link := r.Action == address.ActionLinkWallet
	switch {
	case in.Co != nil && !link:
		return r, nil, Malformed // a second signature that nobody asks for is another spelling
	case !s.TakesScheme(in.Scheme, r.Signer.Namespace):
		return r, nil, SchemeUnsupported
	case in.Co != nil && !s.TakesScheme(in.Co.Scheme, r.NewWallet.Namespace):
		return r, nil, SchemeUnsupported
	}
	if s.Catching {
		return r, nil, CatchingUp
	}
	if s.Epoch().Number == 0 {
		return r, nil, Halted // no keys yet: no address could be shown
	}
	acc, exists := s.Accounts.get(r.account)
	open := r.opens()
	text := r.id
	if exists {
		if i := slices.IndexFunc(acc.Results, func(t Stored) bool { return t.Text == text }); i >= 0 {
			return r, &acc.Results[i], OK
		}
	}
	switch {
	case open && len(acc.Wallets) > 0: // one without a wallet holds coins that came after it was pruned
		return r, nil, AccountExists
	case !open && !exists:
		return r, nil, UnknownAccount
	case !open && !slices.Contains(acc.Wallets, r.Signer.String()):
		return r, nil, SignerNotLinked
	}
	limit := s.Params.ExpirySeconds
	if r.Signer.IsMultisig() {
		limit = multisigExpirySeconds
	}
	switch {
	case r.Expires < 0 || uint64(r.Expires) < s.Time():
		return r, nil, Expired
	case uint64(r.Expires) > s.Time()+limit:
		return r, nil, ExpiryTooFar
	}
	if !x.signedBy(r, r.Signer, in.Scheme, in.Signature, in.Extras) {
		return r, nil, BadSignature
	}
	if link && !x.cosigned(r, in.Co) {
		return r, nil, BadSignature
	}
	expected := acc.Nonce
	if open {
		expected = 0
	}
	if r.Nonce != expected && r.Action != address.ActionOpenLoan { // whose nonce is part of the account's name
		return r, nil, BadNonce
	}
	pays := r.Action == address.ActionBorrow || r.Action == address.ActionWithdraw || r.Action == address.ActionClaim ||
		r.Action == address.ActionOpenLoan || r.AutoWithdrawTo.Address != ""
	if open && !s.room(r.Action == address.ActionOpenLoan) || pays && s.Queue.len()+s.Live.len() >= MaxOpenOutflows {
		return r, nil, Limit // nonce unchanged: the same text may be sent again
	}
	return r, nil, OK
}

// cosigned reports whether the wallet that is to be linked signed the text too,
// with the scheme that it declares.
func (x *execution) cosigned(r request, co *CoSignature) bool {
	return co != nil && x.signedBy(r, r.NewWallet, co.Scheme, co.Signature, co.Extras)
}

// maxAccounts is the hard limit of spec consensus §9.
const maxAccounts = 10_000_000

func (s *State) parse(text string) (request, Code) {
	g := s.Grammar()
	c, err := g.Parse(text)
	r := request{Command: c, grammar: g, id: RequestID(text), refused: errors.Is(err, address.ErrDestination)}
	if err != nil && !r.refused || c == nil {
		return r, Malformed
	}
	r.account = hex16(c.Account)
	return r, OK
}

// operate is the business of a request, after its nonce is used up.
func (x *execution) operate(r request) Code {
	switch r.Action {
	case address.ActionOpenAccount:
		return x.openAccount(r)
	case address.ActionOpenLoan:
		return x.openLoan(r)
	case address.ActionCancel:
		return OK
	case address.ActionBorrow:
		return x.pay(r, OutflowBorrow)
	case address.ActionWithdraw:
		return x.pay(r, OutflowWithdraw)
	case address.ActionClaim:
		return x.pay(r, OutflowRefund)
	case address.ActionRepayFromSupply:
		return x.repayFromSupply(r)
	case address.ActionLiquidate:
		return x.liquidate(r)
	case address.ActionCoverDeficit:
		return x.cover(r)
	case address.ActionCancelOutflow:
		return x.cancelOutflow(r)
	case address.ActionLinkWallet:
		return x.linkWallet(r)
	case address.ActionUnlinkWallet:
		return x.unlinkWallet(r)
	case address.ActionAddPayoutAddress:
		return x.addPayee(r)
	case address.ActionRemovePayoutAddress:
		return x.removePayee(r)
	case address.ActionRequirePayoutList:
		return x.requirePayees(r)
	}
	return NotAllowed // an action of a later ledger version
}

func (x *execution) openAccount(r request) Code {
	s := x.s
	x.makeRoom()
	s.putActive(x.reopen(r))
	x.emit(Event{Name: "account", Account: r.account, Note: r.Signer.String()})
	return OK
}

// pay is a request whose end is coins on a chain.
func (x *execution) pay(r request, kind OutflowKind) Code {
	p, code := r.payment(kind)
	if code != OK {
		return code
	}
	_, code = x.payOut(p)
	return code
}

// repayFromSupply: see State.repayFromSupply.
func (x *execution) repayFromSupply(r request) Code {
	var amount fixed.Int
	if !r.Amount.Max {
		var err error
		if amount, err = fixed.Parse(r.Amount.Units); err != nil {
			return Malformed
		}
	}
	paid, code := x.s.repayFromSupply(r.account, r.Pool, amount, r.Amount.Max)
	if code != OK {
		return code
	}
	x.s.refreshRates()
	x.emit(Event{Name: "repaid-from-supply", Account: r.account, Asset: r.Pool, Amount: paid.String()})
	return OK
}

// cancelOutflow gives back what was never planned. No interest is waived, or
// cash could be held for nothing.
func (x *execution) cancelOutflow(r request) Code {
	o, ok := x.s.Outflows.get(r.Outflow)
	if !ok || o.Account != r.account {
		return UnknownOutflow
	}
	if o.State != Queued || o.Binding != 0 {
		return NotAllowed
	}
	x.refund(o, fixed.Int{}, true)
	return OK
}

// Preview is what a text would do now, its signature, nonce and expiry aside:
// the operation's code and the state it would leave. s is not changed.
func (s *State) Preview(text string) (*State, Code) {
	r, code := s.parse(text)
	if code != OK {
		return s, code
	}
	if r.Cluster != s.ClusterName() {
		return s, WrongCluster
	}
	x := &execution{s: s.View(), verdicts: computed{}}
	if acc, exists := x.s.Accounts.get(r.account); r.opens() && len(acc.Wallets) > 0 {
		return s, AccountExists
	} else if !r.opens() && !exists {
		return s, UnknownAccount
	}
	code = x.guard("preview", func(x *execution) Code {
		return x.try(func(x *execution) Code { return x.operate(r) })
	})
	return x.s, code
}

func hex16(id [16]byte) AccountID { return hex.EncodeToString(id[:]) }

func hexBytes16(id AccountID) ([16]byte, error) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 16 {
		return [16]byte{}, errors.New("not an account id")
	}
	return [16]byte(b), nil
}
