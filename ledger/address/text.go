package address

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// MaxText is the longest request text in bytes (spec: requests §1.1). Only a
// text with destinations that are no addresses can reach it.
const MaxText = 1024

var (
	// ErrMalformed: the text is none that Render produces.
	ErrMalformed = errors.New("malformed request")
	// ErrDestination: the text is well-formed, but coins may not be sent where
	// it says. Parse returns the Command beside this error, because the ledger
	// refuses the destination only after it has consumed the Intent nonce.
	ErrDestination = errors.New("destination refused")
)

// Grammar is what the spelling of requests depends on: the same on every node,
// from genesis and voted parameters. It is read-only in use.
type Grammar struct {
	Brand   string           // begins every text
	Chains  []string         // CAIP-2 ids that addresses may be on
	Wallets []string         // more, that only addresses which sign may be on
	Pools   map[string]Asset // by the pool's name
}

// Asset is how amounts of a pool are written and where it pays.
type Asset struct {
	Symbol   string
	Decimals uint8
	Chain    string // CAIP-2
}

// MaxDecimals is the most that Grammar.Validate takes: NEAR has 24.
const MaxDecimals = 30

// Validate refuses a grammar whose texts would not be canonical.
func (g *Grammar) Validate() error {
	if len(g.Brand) < 1 || len(g.Brand) > 64 || !printable(g.Brand) ||
		strings.TrimSpace(g.Brand) != g.Brand || strings.HasPrefix(g.Brand, "0x") {
		return fmt.Errorf("brand %q: want 1 to 64 printable characters, not beginning with 0x", g.Brand)
	}
	for _, c := range slices.Concat(g.Chains, g.Wallets) {
		if _, err := SplitCAIP10(c + ":x"); err != nil {
			return fmt.Errorf("chain %q: not a CAIP-2 id", c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Pools)) {
		a := g.Pools[name]
		switch {
		case !isPool(name):
			return fmt.Errorf("pool %q: bad name", name)
		case !isSymbol(a.Symbol):
			return fmt.Errorf("pool %s: bad symbol %q", name, a.Symbol)
		case a.Decimals > MaxDecimals:
			return fmt.Errorf("pool %s: %d decimals, at most %d", name, a.Decimals, MaxDecimals)
		case !slices.Contains(g.Chains, a.Chain):
			return fmt.Errorf("pool %s: chain %q is not listed", name, a.Chain)
		}
	}
	return nil
}

// Command is a request, taken apart. Which fields count, the action says; the
// others are zero.
type Command struct {
	Action string

	Amount         Amount
	Pool           string
	To             CAIP10
	MaxFee         Amount
	Collateral     Amount
	CollateralPool string
	Borrower       [16]byte
	AutoWithdrawTo CAIP10 // zero: none
	RefundTo       CAIP10
	Outflow        uint64
	NewWallet      CAIP10
	Wallet         CAIP10
	On             bool

	Account [16]byte
	Signer  CAIP10
	Cluster string
	Nonce   uint64
	Expires int64 // Unix seconds
}

// The actions of spec requests §1.2. Reimburse is of a later ledger version.
const (
	ActionOpenAccount         = "Open account"
	ActionBorrow              = "Borrow"
	ActionWithdraw            = "Withdraw"
	ActionRepayFromSupply     = "Repay from supply"
	ActionLiquidate           = "Liquidate"
	ActionClaim               = "Claim"
	ActionCoverDeficit        = "Cover deficit"
	ActionOpenLoan            = "Open loan"
	ActionCancelOutflow       = "Cancel outflow"
	ActionLinkWallet          = "Link wallet"
	ActionUnlinkWallet        = "Unlink wallet"
	ActionAddPayoutAddress    = "Add payout address"
	ActionRemovePayoutAddress = "Remove payout address"
	ActionRequirePayoutList   = "Require payout list"
	ActionCancel              = "Cancel"
)

// action is one row of spec requests §1.2: the keys between Action and the
// tail, in order, and what no single field can say.
type action struct {
	name   string
	fields []field
	check  func(*Command) error
}

// actions: to add one is to add a row.
func actions() []action {
	amount := amountField("Amount", poolOf, false, func(c *Command) *Amount { return &c.Amount })
	amountOrMax := amountField("Amount", poolOf, true, func(c *Command) *Amount { return &c.Amount })
	maxFee := amountField("Max fee", poolOf, false, func(c *Command) *Amount { return &c.MaxFee })
	collateralFee := amountField("Max fee", collateralPoolOf, false, func(c *Command) *Amount { return &c.MaxFee })
	collateral := amountField("Collateral", collateralPoolOf, false, func(c *Command) *Amount { return &c.Collateral })
	pool := poolField("Pool", func(c *Command) *string { return &c.Pool })
	collateralPool := poolField("Collateral pool", func(c *Command) *string { return &c.CollateralPool })
	to := destinationField("To", poolOf, func(c *Command) *CAIP10 { return &c.To })
	payout := destinationField("To", nil, func(c *Command) *CAIP10 { return &c.To })
	refundTo := destinationField("Refund to", collateralPoolOf, func(c *Command) *CAIP10 { return &c.RefundTo })
	autoWithdrawTo := orNone(destinationField("Auto-withdraw to", collateralPoolOf,
		func(c *Command) *CAIP10 { return &c.AutoWithdrawTo }), func(c *Command) *CAIP10 { return &c.AutoWithdrawTo })
	borrower := accountField("Borrower", func(c *Command) *[16]byte { return &c.Borrower })
	outflow := numberField("Outflow", func(c *Command) *uint64 { return &c.Outflow })
	newWallet := walletField("New wallet", func(c *Command) *CAIP10 { return &c.NewWallet })
	wallet := walletField("Wallet", func(c *Command) *CAIP10 { return &c.Wallet })

	return []action{
		{ActionOpenAccount, nil, checkOpenAccount},
		{ActionBorrow, []field{amount, pool, to, maxFee}, nil},
		{ActionWithdraw, []field{amountOrMax, pool, to, maxFee}, nil},
		{ActionRepayFromSupply, []field{amountOrMax, pool}, nil},
		{ActionLiquidate, []field{amountOrMax, pool, collateralPool, borrower, autoWithdrawTo, collateralFee}, checkLiquidate},
		{ActionClaim, []field{pool, to, maxFee}, nil},
		{ActionCoverDeficit, []field{amount, pool}, nil},
		{ActionOpenLoan, []field{collateral, collateralPool, amount, pool, to, maxFee, refundTo}, checkOpenLoan},
		{ActionCancelOutflow, []field{outflow}, nil},
		{ActionLinkWallet, []field{newWallet}, nil},
		{ActionUnlinkWallet, []field{wallet}, nil},
		{ActionAddPayoutAddress, []field{payout}, nil},
		{ActionRemovePayoutAddress, []field{payout}, nil},
		{ActionRequirePayoutList, []field{onField()}, nil},
		{ActionCancel, nil, nil},
	}
}

// tail is what every action ends with.
func tail() []field {
	return []field{
		accountField("Account", func(c *Command) *[16]byte { return &c.Account }),
		walletField("Signer", func(c *Command) *CAIP10 { return &c.Signer }),
		clusterField(),
		numberField("Nonce", func(c *Command) *uint64 { return &c.Nonce }),
		expiresField(),
	}
}

// table holds the rows with their tails; never written after init.
var table = func() []action {
	rows := actions()
	for i := range rows {
		rows[i].fields = append(rows[i].fields, tail()...)
	}
	return rows
}()

func row(name string) (action, bool) {
	for _, a := range table {
		if a.name == name {
			return a, true
		}
	}
	return action{}, false
}

// checkOpenAccount: the id is the wallet's and the cluster's, so nobody opens
// an account in another's name (spec: requests §1.2).
func checkOpenAccount(c *Command) error {
	if c.Account != AccountID(c.Cluster, c.Signer) {
		return malformed("Account is not the one of this Signer and Cluster")
	}
	return nil
}

// checkOpenLoan: likewise; the Nonce makes it one of many.
func checkOpenLoan(c *Command) error {
	if c.Account != LoanID(c.Cluster, c.Signer, c.Nonce) {
		return malformed("Account is not the one of this Signer, Cluster and Nonce")
	}
	return nil
}

// checkLiquidate: nothing is paid out, so nothing is paid for it.
func checkLiquidate(c *Command) error {
	if c.AutoWithdrawTo == (CAIP10{}) && c.MaxFee.Units != "0" {
		return malformed("Max fee without Auto-withdraw to")
	}
	return nil
}

// AccountID is the id of the account that signer opens (spec: requests §1.2).
func AccountID(cluster string, signer CAIP10) [16]byte {
	h := sha256.Sum256([]byte("coffer/account\x00" + cluster + "\x00" + signer.String()))
	return [16]byte(h[:16])
}

// LoanID is the id of the account of the simple loan that signer opens with a
// nonce of his choice (spec: requests §1.2).
func LoanID(cluster string, signer CAIP10, nonce uint64) [16]byte {
	h := sha256.Sum256([]byte("coffer/loan\x00" + cluster + "\x00" + signer.String() + "\x00" + strconv.FormatUint(nonce, 10)))
	return [16]byte(h[:16])
}

const (
	asks      = " asks you to authorise this request\n\nAction: "
	separator = ": "
)

// Render writes c as the wallet shows it. What Parse would not have given has
// no text of its own; Parse refuses what Render then writes.
func (g *Grammar) Render(c *Command) string {
	var b strings.Builder
	b.WriteString(g.Brand + asks + c.Action)
	a, _ := row(c.Action)
	for _, f := range a.fields {
		b.WriteString("\n" + f.key + separator + f.render(c))
	}
	return b.String()
}

// Parse reads exactly the texts that Render writes: whatever it gives renders
// to the same bytes. An error is ErrMalformed, with no Command, or
// ErrDestination, with one.
func (g *Grammar) Parse(text string) (*Command, error) {
	if len(text) > MaxText {
		return nil, malformed("%d bytes, at most %d", len(text), MaxText)
	}
	body, ok := strings.CutPrefix(text, g.Brand+asks)
	if !ok {
		return nil, malformed("does not begin with %q", g.Brand+asks)
	}
	lines := strings.Split(body, "\n")
	a, ok := row(lines[0])
	if !ok {
		return nil, malformed("unknown action %.40q", lines[0])
	}
	if len(lines) != 1+len(a.fields) {
		return nil, malformed("%s has %d fields, want %d", a.name, len(lines)-1, len(a.fields))
	}
	c := &Command{Action: a.name}
	for i, f := range a.fields {
		value, ok := strings.CutPrefix(lines[1+i], f.key+separator)
		if !ok {
			return nil, malformed("field %d is not %s", i+1, f.key)
		}
		if !f.parse(c, value) {
			return nil, malformed("%s: %.80q", f.key, value)
		}
	}
	if a.check != nil {
		if err := a.check(c); err != nil {
			return nil, err
		}
	}
	if g.Render(c) != text {
		return nil, malformed("not the canonical spelling")
	}
	var refused error
	for _, f := range a.fields {
		if f.check == nil {
			continue
		}
		err := f.check(g, c)
		if errors.Is(err, ErrMalformed) {
			return nil, err
		}
		if refused == nil {
			refused = err
		}
	}
	return c, refused
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
