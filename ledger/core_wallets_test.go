package ledger

import (
	"slices"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
)

// link is a request for a second controller, signed by both.
func (c *cluster) link(by, wallet wallet, change ...func(*address.Command)) *Intent {
	text := c.text(by, address.Command{Action: address.ActionLinkWallet, NewWallet: wallet.id}, change...)
	in, co := by.sign(text), wallet.sign(text)
	in.Co = &CoSignature{Scheme: co.Scheme, Signature: co.Signature}
	return in
}

func (c *cluster) mustLink(by, wallet wallet, change ...func(*address.Command)) {
	c.t.Helper()
	if code := c.run(Command{Intent: c.link(by, wallet, change...)}); code != OK {
		c.t.Fatalf("link %s: %s", wallet.id, code)
	}
}

// as makes a request one for the account of another wallet.
func (c *cluster) as(owner wallet) func(*address.Command) {
	return func(a *address.Command) {
		a.Account = address.AccountID(c.s.Genesis.ClusterName(), owner.id)
		a.Nonce = c.s.Accounts.at(accountOf(c, owner)).Nonce
	}
}

// "Link wallet needs two signatures over the same text: the controller's and
// the new wallet's, with its own scheme." Both are judged before the nonce is
// used up, so a refusal for either changes nothing at all.
func TestLinkWalletSignatures(t *testing.T) {
	c, _, borrower := lent(t)
	second, stranger := ethWallet(21), ethWallet(22)
	good := c.link(borrower, second)
	for name, tc := range map[string]struct {
		change func(in *Intent)
		code   Code
	}{
		"no second signature":     {func(in *Intent) { in.Co = nil }, BadSignature},
		"an empty one":            {func(in *Intent) { in.Co.Signature = "" }, BadSignature},
		"a stranger's":            {func(in *Intent) { in.Co.Signature = stranger.sign(in.Text).Signature }, BadSignature},
		"of another text":         {func(in *Intent) { in.Co.Signature = second.sign(in.Text + " ").Signature }, BadSignature},
		"the controller's again":  {func(in *Intent) { in.Co.Signature = in.Signature }, BadSignature},
		"an unknown scheme":       {func(in *Intent) { in.Co.Scheme = "pgp" }, SchemeUnsupported},
		"the controller's scheme": {func(in *Intent) { in.Co.Scheme = in.Scheme }, SchemeUnsupported},
		"only the new wallet's":   {func(in *Intent) { in.Signature = "" }, BadSignature},
	} {
		in, co := *good, *good.Co
		in.Co = &co
		tc.change(&in)
		before := frame(c.s)
		if code := c.run(Command{Intent: &in}); code != tc.code || frame(c.s) != before {
			t.Errorf("%s: %s, want %s; changed: %v", name, code, tc.code, frame(c.s) != before)
		}
	}
	// A second signature that nobody asked for is another spelling of a request.
	cancel := borrower.sign(c.text(borrower, address.Command{Action: address.ActionCancel}))
	cancel.Co = good.Co
	before := frame(c.s)
	if code := c.run(Command{Intent: cancel}); code != Malformed || frame(c.s) != before {
		t.Errorf("Cancel with a second signature: %s", code)
	}
	if code := c.run(Command{Intent: good}); code != OK {
		t.Fatal(code)
	}
}

// "One nonce per account, not per wallet", and each controller is as good as
// the others; "removing the last" is refused.
func TestSeveralWallets(t *testing.T) {
	c, _, borrower := lent(t)
	id := accountOf(c, borrower)
	second, third := ethWallet(21), taprootWallet(22)
	c.mustLink(borrower, second)
	c.mustLink(second, third, c.as(borrower))
	want := []string{borrower.id.String(), second.id.String(), third.id.String()}
	if got := c.s.Accounts.at(id).Wallets; !slices.Equal(got, want) {
		t.Fatalf("wallets %v, want %v", got, want)
	}
	// Two texts for one nonce: whoever comes second is refused.
	one := borrower.sign(c.text(borrower, address.Command{Action: address.ActionCancel}))
	other := third.sign(c.text(third, address.Command{Action: address.ActionCancel}, c.as(borrower)))
	if a, b := c.run(Command{Intent: one}), c.run(Command{Intent: other}); a != OK || b != BadNonce {
		t.Errorf("two wallets, one nonce: %s and %s", a, b)
	}
	if code := c.ask(second, c.borrowUSDT("1000000000"), c.as(borrower)); code != OK {
		t.Errorf("borrow with the second wallet: %s", code)
	}
	unlink := func(by, w wallet) Code {
		return c.ask(by, address.Command{Action: address.ActionUnlinkWallet, Wallet: w.id}, c.as(borrower))
	}
	// The first one goes too, and its account stays: nobody opens it anew.
	if code := unlink(third, borrower); code != OK {
		t.Fatal(code)
	}
	if code := c.ask(borrower, address.Command{Action: address.ActionOpenAccount}, func(a *address.Command) { a.Nonce = 0 }); code != AccountExists {
		t.Errorf("open again after the unlink: %s", code)
	}
	if code := c.ask(borrower, address.Command{Action: address.ActionCancel}); code != SignerNotLinked {
		t.Errorf("the unlinked wallet signs: %s", code)
	}
	if code := unlink(second, second); code != OK {
		t.Fatalf("itself: %s", code)
	}
	if code := unlink(third, third); code != SoleAccount {
		t.Errorf("the last one: %s", code)
	}
	if c.s.Linked.len() != 1 {
		t.Errorf("%d wallets in the index, want the third", c.s.Linked.len())
	}
	// Back again, without a row: the id is its hash.
	c.mustLink(third, borrower, c.as(borrower))
	if c.s.Linked.len() != 1 || c.ask(borrower, address.Command{Action: address.ActionCancel}) != OK {
		t.Error("the first wallet did not come back")
	}
}

func TestWalletRefusals(t *testing.T) {
	c, lender, borrower := lent(t)
	poor := btcWallet(31)
	c.open(poor)
	far := ethWallet(32)
	c.mustLink(lender, far)
	many := *c
	many.s = c.s.View()
	for i := range maxWallets - 1 {
		many.mustLink(borrower, ethWallet(40+i))
	}
	unlink := func(w wallet) address.Command {
		return address.Command{Action: address.ActionUnlinkWallet, Wallet: w.id}
	}
	for name, tc := range map[string]struct {
		at     *cluster
		by     wallet
		link   *wallet
		unlink *wallet
		code   Code
	}{
		"an account never credited":      {by: poor, link: &wallet{}, code: InsufficientBalance},
		"a wallet of this account":       {by: borrower, link: &borrower, code: AccountLinked},
		"a wallet with an account":       {by: borrower, link: &lender, code: AccountLinked},
		"a wallet with an empty account": {by: borrower, link: &poor, code: AccountLinked},
		"a wallet linked to another":     {by: borrower, link: &far, code: AccountLinked},
		"a 17th wallet":                  {at: &many, by: borrower, link: &wallet{}, code: NotAllowed},
		"unlink another's wallet":        {by: borrower, unlink: &lender, code: SignerNotLinked},
		"unlink a wallet of nobody":      {by: borrower, unlink: &wallet{}, code: SignerNotLinked},
		"unlink the only wallet":         {by: borrower, unlink: &borrower, code: SoleAccount},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := ethWallet(99)
			for _, w := range []**wallet{&tc.link, &tc.unlink} {
				if *w != nil && (*w).key == nil {
					*w = &fresh
				}
			}
			c := c
			if tc.at != nil {
				c = tc.at
			}
			v := *c
			v.t, v.s = t, c.s.View()
			id := accountOf(&v, tc.by)
			before, nonce := frame(v.s, apartFrom(id)), v.s.Accounts.at(id).Nonce
			var code Code
			if tc.link != nil {
				code = v.run(Command{Intent: v.link(tc.by, *tc.link)})
			} else {
				code = v.ask(tc.by, unlink(*tc.unlink))
			}
			if code != tc.code || frame(v.s, apartFrom(id)) != before || v.s.Accounts.at(id).Nonce != nonce+1 {
				t.Errorf("%s, want %s; changed: %v", code, tc.code, frame(v.s, apartFrom(id)) != before)
			}
		})
	}
	// An unlinked wallet is free again, and a wallet without account may be linked
	// and open one of its own all the same: requests name the account.
	if code := c.ask(lender, unlink(far)); code != OK {
		t.Fatal(code)
	}
	c.mustLink(borrower, far)
	c.deposit(c.open(far), "btc", PurposeSupply, "100000")
	c.mustLink(far, ethWallet(33))
	if code := c.ask(far, unlink(far)); code != OK || c.s.linkedTo(far.id.String()) != accountOf(c, borrower) {
		t.Errorf("unlinked from its own account: %s, linked to %q", code, c.s.linkedTo(far.id.String()))
	}
	if code := c.ask(borrower, unlink(far)); code != OK || c.s.Linked.len() != 1 {
		t.Errorf("%s, %d in the index", code, c.s.Linked.len())
	}
}
