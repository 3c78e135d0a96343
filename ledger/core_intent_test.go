package ledger

import (
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

func swapText(old, new string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, new, 1) }
}

// An Intent refused by the prelude changes nothing at all, not even its nonce
// (spec: lending §5, steps 1–8).
func TestPreludeRefusals(t *testing.T) {
	c, _, borrower := lent(t)
	other := btcWallet(77)
	for name, tc := range map[string]struct {
		change func(*address.Command)
		text   func(string) string
		by     *wallet
		intent func(*Intent)
		code   Code
	}{
		"no request":              {text: func(string) string { return "hello" }, code: Malformed},
		"nothing":                 {text: func(string) string { return "" }, code: Malformed},
		"another brand":           {text: swapText("coffer.test", "coffer.evil"), code: Malformed},
		"a trailing newline":      {text: func(s string) string { return s + "\n" }, code: Malformed},
		"CR LF":                   {text: func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }, code: Malformed},
		"an unknown action":       {text: swapText("Action: Borrow", "Action: Steal"), code: Malformed},
		"a field too many":        {text: swapText("\nPool:", "\nNote: x\nPool:"), code: Malformed},
		"a field too few":         {text: swapText("\nPool: usdt.eth", ""), code: Malformed},
		"a doubled field":         {text: swapText("\nPool: usdt.eth", "\nPool: usdt.eth\nPool: usdt.eth"), code: Malformed},
		"fields in another order": {text: swapText("Amount: 1000.000000 USDT\nPool: usdt.eth", "Pool: usdt.eth\nAmount: 1000.000000 USDT"), code: Malformed},
		"a decimal too many":      {text: swapText("1000.000000", "1000.0000000"), code: Malformed},
		"a decimal too few":       {text: swapText("1000.000000", "1000.00000"), code: Malformed},
		"no decimals":             {text: swapText("1000.000000", "1000"), code: Malformed},
		"2¹²⁸ units":              {text: swapText("1000.000000", "340282366920938463463374607431768.211456"), code: Malformed},
		"far above 2¹²⁸":          {text: swapText("1000.000000", strings.Repeat("9", 31)+".000000"), code: Malformed},
		"a fee above 2¹²⁸":        {text: swapText("10.000000", "340282366920938463463374607431768.211456"), code: Malformed},
		"a negative amount":       {text: swapText("1000.000000", "-1000.000000"), code: Malformed},
		"an exponent":             {text: swapText("1000.000000", "1e3"), code: Malformed},
		"a leading zero":          {text: swapText("1000.000000", "01000.000000"), code: Malformed},
		"another asset's symbol":  {text: swapText("1000.000000 USDT", "1000.000000 BTC"), code: Malformed},
		"an offset":               {text: swapText("Z", "+00:00"), code: Malformed},
		"a nonce with a zero":     {text: swapText("Nonce: ", "Nonce: 0"), code: Malformed},
		"too long":                {text: func(s string) string { return s + strings.Repeat(" ", address.MaxText) }, code: Malformed},
		"a Cyrillic letter":       {text: swapText("Borrow", "Bоrrow"), code: Malformed},
		"a signer elsewhere":      {text: swapText("Signer: "+btcCAIP2, "Signer: bip122:000000000019d6689c085ae165831e93"), code: Malformed},
		"an account in capitals": {text: func(s string) string {
			id := accountOf(c, borrower)
			return strings.Replace(s, id, strings.ToUpper(id), 1)
		}, code: Malformed},
		"another cluster":            {change: func(a *address.Command) { a.Cluster = "coffer-test/" + strings.Repeat("ab", 16) }, code: WrongCluster},
		"another name":               {change: func(a *address.Command) { a.Cluster = "coffer-main" + a.Cluster[len("coffer-test"):] }, code: WrongCluster},
		"an unknown scheme":          {intent: func(in *Intent) { in.Scheme = "pgp" }, code: SchemeUnsupported},
		"no scheme":                  {intent: func(in *Intent) { in.Scheme = "" }, code: SchemeUnsupported},
		"a scheme that fits not":     {intent: func(in *Intent) { in.Scheme = address.SchemeEIP191 }, code: SchemeUnsupported},
		"eip712, which is off":       {intent: func(in *Intent) { in.Scheme = "eip712" }, code: SchemeUnsupported},
		"an unknown account":         {change: func(a *address.Command) { a.Account[0]++ }, code: UnknownAccount},
		"another wallet, his name":   {change: func(a *address.Command) { a.Signer = other.id }, by: &other, code: SignerNotLinked},
		"expired":                    {change: func(a *address.Command) { a.Expires = int64(c.s.Time()) - 1 }, code: Expired},
		"expired long ago":           {change: func(a *address.Command) { a.Expires = 1 }, code: Expired},
		"too far ahead":              {change: func(a *address.Command) { a.Expires = int64(c.s.Time()) + 601 }, code: ExpiryTooFar},
		"absurdly far ahead":         {change: func(a *address.Command) { a.Expires = 253_402_300_799 }, code: ExpiryTooFar},
		"another key, same name":     {by: &wallet{other.key, other.id, ""}, code: BadSignature},
		"no signature":               {intent: func(in *Intent) { in.Signature = "" }, code: BadSignature},
		"no base64":                  {intent: func(in *Intent) { in.Signature = "smp???" }, code: BadSignature},
		"a flipped bit":              {intent: func(in *Intent) { in.Signature = flipBase64(in.Signature) }, code: BadSignature},
		"of another text":            {intent: func(in *Intent) { in.Signature = borrower.sign(in.Text + " ").Signature }, code: BadSignature},
		"a nonce behind":             {change: func(a *address.Command) { a.Nonce-- }, code: BadNonce},
		"a nonce ahead":              {change: func(a *address.Command) { a.Nonce++ }, code: BadNonce},
		"the account is open":        {change: func(a *address.Command) { a.Action, a.Nonce = address.ActionOpenAccount, 0 }, code: AccountExists},
		"an account in another name": {change: func(a *address.Command) { a.Action, a.Account[0] = address.ActionOpenAccount, 1 }, code: Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t, c.s = t, c.s.View()
			text := c.text(borrower, c.borrowUSDT("1000000000"), func(a *address.Command) {
				if tc.change != nil {
					tc.change(a)
				}
			})
			if tc.text != nil {
				was := text
				if text = tc.text(text); text == was {
					t.Fatal("nothing was spoilt")
				}
			}
			by := borrower
			if tc.by != nil {
				by = *tc.by
			}
			in := &Intent{Scheme: borrower.scheme, Text: text}
			in.Signature = must(address.SignBIP322Simple(by.key, "regtest", by.id.Address, []byte(text)))
			if tc.intent != nil {
				tc.intent(in)
			}
			before := frame(c.s)
			if code := c.run(Command{Intent: in}); code != tc.code {
				t.Fatalf("%s, want %s", code, tc.code)
			}
			if frame(c.s) != before || len(c.last.Events) != 0 {
				t.Error("a refusal of the prelude changed the state")
			}
		})
	}
	// The neighbours of the limits are accepted.
	for name, expires := range map[string]int64{"now": int64(c.s.Time()), "600 s ahead": int64(c.s.Time()) + 600} {
		w := *c
		w.s = c.s.View()
		if code := w.ask(borrower, w.borrowUSDT("1000000000"), func(a *address.Command) { a.Expires = expires }); code != OK {
			t.Errorf("expiry %s: %s", name, code)
		}
	}
}

// flipBase64 changes one character in the middle of a signature.
func flipBase64(s string) string {
	i := len(s) / 2
	r := byte('A')
	if s[i] == 'A' {
		r = 'B'
	}
	return s[:i] + string(r) + s[i+1:]
}

// Each check answers before the one below it: a request that fails two of them
// hears of the first (spec: lending §5).
func TestPreludeOrder(t *testing.T) {
	c, _, borrower := lent(t)
	other := btcWallet(77)
	now := int64(c.s.Time())
	// From the last check upwards; each row keeps what the rows before spoilt.
	cmd := c.borrowUSDT("1000000000")
	var by = borrower
	spoilt := []func(*address.Command){}
	text := func(s string) string { return s }
	scheme := borrower.scheme
	for _, r := range []struct {
		code  Code
		spoil func()
	}{
		{BadNonce, func() { spoilt = append(spoilt, func(a *address.Command) { a.Nonce = 99 }) }},
		{BadSignature, func() { by = other }},
		{ExpiryTooFar, func() { spoilt = append(spoilt, func(a *address.Command) { a.Expires = now + 6000 }) }},
		{SignerNotLinked, func() { spoilt = append(spoilt, func(a *address.Command) { a.Signer = taprootWallet(9).id }) }},
		{UnknownAccount, func() { spoilt = append(spoilt, func(a *address.Command) { a.Account[3]++ }) }},
		{CatchingUp, func() { c.s.Catching = true }},
		{SchemeUnsupported, func() { scheme = "pgp" }},
		{WrongCluster, func() {
			spoilt = append(spoilt, func(a *address.Command) { a.Cluster = "x/" + strings.Repeat("0", 32) })
		}},
		{Malformed, func() { text = func(s string) string { return s + " " } }},
	} {
		r.spoil()
		said := text(c.text(borrower, cmd, spoilt...))
		in := &Intent{Scheme: scheme, Text: said, Signature: must(address.SignBIP322Simple(by.key, "regtest", by.id.Address, []byte(said)))}
		if code := c.s.View().Apply(Command{Intent: in}); code != r.code {
			t.Fatalf("%s, want %s", code, r.code)
		}
	}
}

// "The Intent nonce is consumed as soon as signature, cluster, expiry and the
// nonce comparison pass, even if a business rule then refuses. A refused Intent
// changes nothing else: no accrual, no rates, no clock, no balances."
func TestBusinessRefusals(t *testing.T) {
	c, _, borrower := lent(t)
	hot, _ := c.s.Vault(Ethereum, address.RoleHot)
	gas, _ := c.s.Vault(Ethereum, address.RoleGas)
	minter, _ := c.s.Vault(Bitcoin, address.RoleMinter)
	own, _ := c.s.AddressOf(accountOf(c, borrower), Ethereum, PurposeSupply)
	repay, _ := c.s.AddressOf(accountOf(c, borrower), Ethereum, PurposeRepay)
	theirs, _ := c.s.AddressOf(accountOf(c, ethWallet(1)), Ethereum, PurposeSupply)
	deposit, _ := c.s.AddressOf(accountOf(c, borrower), Bitcoin, PurposeSupply)
	to := func(addr string) address.Command {
		return c.payout(address.ActionBorrow, "usdt.eth", "1000000000", addr, "10000000")
	}
	btcTo := func(addr string) address.Command {
		return c.payout(address.ActionWithdraw, "btc", "1000000", addr, "10000")
	}
	elsewhere := func(caip string) address.Command {
		cmd := to(payeeETH)
		cmd.To = must(address.SplitCAIP10(caip))
		return cmd
	}
	state := func(f func(*State)) func(*State) { return f }
	pool := func(f func(*Pool)) func(*State) {
		return func(s *State) {
			p := s.Pools.at("usdt.eth")
			f(&p)
			s.Pools.put("usdt.eth", p)
		}
	}
	withPool := func(cmd address.Command, pool string) address.Command {
		cmd.Pool = pool
		return cmd
	}
	for name, tc := range map[string]struct {
		cmd   address.Command
		spoil func(*State)
		code  Code
	}{
		"an unknown pool":             {cmd: withPool(to(payeeETH), "doge"), code: UnknownPool},
		"an asset without a pool":     {cmd: withPool(to(payeeETH), "eth"), code: UnknownPool},
		"amount 0":                    {cmd: c.borrowUSDT("0"), code: BelowMin},
		"withdraw 0":                  {cmd: c.payout(address.ActionWithdraw, "btc", "0", payeeBTC(1), "10000"), code: BelowMin},
		"below the minimum":           {cmd: c.borrowUSDT("999999"), code: BelowMin},
		"as much as can be written":   {cmd: c.borrowUSDT(strings.Repeat("9", 36)), code: NoLiquidity},
		"USDT to a Bitcoin address":   {cmd: elsewhere(btcCAIP2 + ":" + payeeBTC(1)), code: DestinationRefused},
		"USDT on another chain":       {cmd: elsewhere("eip155:1:" + payeeETH), code: DestinationRefused},
		"an address in capitals":      {cmd: to(strings.ToUpper(payeeETH[2:])), code: DestinationRefused},
		"a wrong checksum":            {cmd: to(strings.ToLower(payeeETH)), code: DestinationRefused},
		"Bitcoin of another network":  {cmd: btcTo("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l"), code: DestinationRefused},
		"the zero address":            {cmd: to("0x0000000000000000000000000000000000000000"), code: DestinationRefused},
		"a precompile":                {cmd: to("0x0000000000000000000000000000000000000001"), code: DestinationRefused},
		"our hot address":             {cmd: to(hot.Address), code: DestinationRefused},
		"our gas address":             {cmd: to(gas.Address), code: DestinationRefused},
		"own deposit address":         {cmd: to(own.Address), code: DestinationRefused},
		"own repay address":           {cmd: to(repay.Address), code: DestinationRefused},
		"another's deposit address":   {cmd: to(theirs.Address), code: DestinationRefused},
		"the token's contract":        {cmd: to(coreToken), code: DestinationRefused},
		"the Bitcoin vault":           {cmd: btcTo(minter.Address), code: DestinationRefused},
		"own Bitcoin deposit address": {cmd: btcTo(deposit.Address), code: DestinationRefused},
		"a Taproot key of no point":   {cmd: btcTo("bcrt1pam775nxmvam4pfpqlm5q06k0y84e3x9w0xuhdpmxuna2qj3dfg6qfntxll"), code: DestinationRefused},
		"a Taproot key too large":     {cmd: btcTo("bcrt1pllllllllllllllllllllllllllllllllllllllllllllallllscq9xlyzf"), code: DestinationRefused},
		"witness version 2":           {cmd: btcTo("bcrt1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqs635n3"), code: DestinationRefused},
		"witness version 1, 20 bytes": {cmd: btcTo("bcrt1pw508d6qejxtdg4y5r3zarvary0c5xw7k62vg0x"), code: DestinationRefused},
		"witness version 0, 16 bytes": {cmd: btcTo("bcrt1qw508d6qejxtdg4y5r3zarvaryv9c64yu"), code: DestinationRefused},
		"pay to anchor":               {cmd: btcTo("bcrt1pfeesnyr2tx"), code: DestinationRefused},
		"a Max fee below the quote":   {cmd: c.payout(address.ActionBorrow, "usdt.eth", "1000000000", payeeETH, "1"), code: FeeTooHigh},
		"no Max fee":                  {cmd: c.payout(address.ActionWithdraw, "btc", "1000000", payeeBTC(1), "0"), code: FeeTooHigh},
		"all of it for the fee":       {cmd: c.payout(address.ActionBorrow, "usdt.eth", "10000000", payeeETH, "10000000"), code: BelowMin},
		"dust after the fee":          {cmd: c.payout(address.ActionWithdraw, "btc", "10000", payeeBTC(1), "9500"), code: BelowMin},
		"halted outflows":             {cmd: to(payeeETH), spoil: state(func(s *State) { s.OutflowsHalt = "test" }), code: Halted},
		"no fee rate":                 {cmd: to(payeeETH), spoil: state(func(s *State) { s.Rates.delete(Ethereum) }), code: Halted},
		"too much of everything":      {cmd: c.borrowUSDT("100000000001"), code: NoLiquidity},
		"too much for the collateral": {cmd: c.borrowUSDT("41000000000"), code: HealthFactor},
		"too much for the LTV":        {cmd: c.borrowUSDT("38000000000"), code: MaxLTV},
		"more than is held":           {cmd: c.payout(address.ActionWithdraw, "btc", "100000001", payeeBTC(1), "10000"), code: InsufficientBalance},
		"nothing to claim":            {cmd: func() address.Command { cmd := to(payeeETH); cmd.Action = address.ActionClaim; return cmd }(), code: InsufficientBalance},
		"a paused pool":               {cmd: to(payeeETH), spoil: pool(func(p *Pool) { p.Paused = true }), code: Paused},
		"a frozen pool":               {cmd: to(payeeETH), spoil: pool(func(p *Pool) { p.Frozen = true }), code: Frozen},
		"no borrowing here":           {cmd: to(payeeETH), spoil: pool(func(p *Pool) { p.BorrowEnabled = false }), code: BorrowDisabled},
		"a borrow cap":                {cmd: to(payeeETH), spoil: pool(func(p *Pool) { p.Param.BorrowCap = n("1") }), code: BorrowCap},
		"no price":                    {cmd: to(payeeETH), spoil: state(func(s *State) { s.Prices.delete("btc") }), code: PriceStale},
		"an old price":                {cmd: to(payeeETH), spoil: state(func(s *State) { p := s.Prices.at("btc"); p.Millis -= 120_001; s.Prices.put("btc", p) }), code: PriceStale},
		"an outflow of nobody":        {cmd: address.Command{Action: address.ActionCancelOutflow, Outflow: 99}, code: UnknownOutflow},
		"another's outflow":           {cmd: address.Command{Action: address.ActionCancelOutflow, Outflow: 1}, code: UnknownOutflow},
		"a destination that reverted": {cmd: to(payeeETH), spoil: state(func(s *State) {
			a := s.Accounts.at(accountOf(c, borrower))
			a.Refused = []Refused{{To: payeeETH, Millis: s.Millis - refusedDestinationMillis + 2000}}
			s.Accounts.put(a.ID, a)
		}), code: DestinationRefused},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t, c.s = t, c.s.View()
			if tc.spoil != nil {
				tc.spoil(c.s)
			}
			c.tick(1000) // so that accrual, if it ran, would show
			id := accountOf(&c, borrower)
			was := c.s.Accounts.at(id)
			before := frame(c.s, apartFrom(id))
			text := c.text(borrower, tc.cmd)
			if code := c.run(Command{Intent: borrower.sign(text)}); code != tc.code {
				t.Fatalf("%s, want %s", code, tc.code)
			}
			if frame(c.s, apartFrom(id)) != before {
				t.Error("a refusal changed more than the nonce")
			}
			a := c.s.Accounts.at(id)
			if a.Nonce != was.Nonce+1 {
				t.Errorf("nonce %d, want %d", a.Nonce, was.Nonce+1)
			}
			last := a.Results[len(a.Results)-1]
			if last.Nonce != was.Nonce || last.Code != tc.code || last.Text != RequestID(text) || last.Height != c.s.Height || last.Outflow != 0 {
				t.Errorf("stored result %+v", last)
			}
		})
	}
}

// "The same text again returns the stored result, whatever signature comes with
// it; another text at a used nonce is BAD_NONCE." The last 16 are kept.
func TestRepeatedRequests(t *testing.T) {
	c, _, borrower := lent(t)
	id := accountOf(c, borrower)
	ok := borrower.sign(c.text(borrower, c.borrowUSDT("1000000000")))
	if code := c.run(Command{Intent: ok}); code != OK {
		t.Fatal(code)
	}
	bad := borrower.sign(c.text(borrower, c.borrowUSDT("99000000000")))
	if code := c.run(Command{Intent: bad}); code != NoLiquidity && code != HealthFactor {
		t.Fatal(code)
	}
	refusal := c.last.Code
	for name, tc := range map[string]struct {
		in   Intent
		code Code
	}{
		"the accepted one":           {*ok, OK},
		"the refused one":            {*bad, refusal},
		"with another signature":     {Intent{Scheme: ok.Scheme, Text: ok.Text, Signature: "smp"}, OK},
		"another text, used nonce":   {*borrower.sign(c.text(borrower, c.borrowUSDT("2000000000"), func(a *address.Command) { a.Nonce -= 2 })), BadNonce},
		"another expiry, used nonce": {*borrower.sign(c.text(borrower, c.borrowUSDT("1000000000"), func(a *address.Command) { a.Nonce -= 2; a.Expires-- })), BadNonce},
	} {
		before := frame(c.s)
		if code := c.run(Command{Intent: &tc.in}); code != tc.code || frame(c.s) != before {
			t.Errorf("%s: %s, want %s; changed: %v", name, code, tc.code, frame(c.s) != before)
		}
	}
	// Prices that would let the refused one pass now do not bring it back.
	c.prices("50000000000000", "250000000000", "100000000")
	if code := c.run(Command{Intent: bad}); code != refusal {
		t.Errorf("the refused one at another price: %s", code)
	}
	for i := range storedResults {
		if code := c.ask(borrower, address.Command{Action: address.ActionCancel}, func(a *address.Command) { a.Expires -= int64(i) }); code != OK {
			t.Fatal(code)
		}
	}
	a := c.s.Accounts.at(id)
	if len(a.Results) != storedResults || a.Results[0].Nonce+storedResults != a.Nonce {
		t.Fatalf("%d results kept from nonce %d, next %d", len(a.Results), a.Results[0].Nonce, a.Nonce)
	}
	if code := c.run(Command{Intent: ok}); code != BadNonce {
		t.Errorf("a forgotten one: %s", code)
	}
}

// Every scheme of this release opens an account and signs for it.
func TestWallets(t *testing.T) {
	c := running(t)
	for name, w := range map[string]wallet{"P2WPKH": btcWallet(11), "P2TR": taprootWallet(12), "EIP-191": ethWallet(13)} {
		t.Run(name, func(t *testing.T) {
			open := w.sign(c.text(w, address.Command{Action: address.ActionOpenAccount}))
			if code := c.run(Command{Intent: open}); code != OK {
				t.Fatal(code)
			}
			id := accountOf(c, w)
			a := c.s.Accounts.at(id)
			if a.Nonce != 1 || len(a.Wallets) != 1 || a.Wallets[0] != w.id.String() {
				t.Fatalf("account %+v", a)
			}
			seen := map[string]bool{}
			for _, chain := range []string{Bitcoin, Ethereum} {
				for _, p := range []Purpose{PurposeSupply, PurposeRepay} {
					at, ok := c.s.AddressOf(id, chain, p)
					if !ok || at.Account != id || at.Purpose != p || seen[at.Address] {
						t.Errorf("address on %s for %d: %+v", chain, p, at)
					}
					seen[at.Address] = true
				}
			}
			if code := c.run(Command{Intent: open}); code != OK || c.s.Accounts.at(id).Nonce != 1 {
				t.Errorf("the same again: %s", code)
			}
			if code := c.ask(w, address.Command{Action: address.ActionOpenAccount}, func(a *address.Command) { a.Nonce, a.Expires = 0, a.Expires-1 }); code != AccountExists {
				t.Errorf("opening twice: %s", code)
			}
			if code := c.ask(w, address.Command{Action: address.ActionCancel}); code != OK || c.s.Accounts.at(id).Nonce != 2 {
				t.Errorf("a request: %s", code)
			}
			forged := w.sign(c.text(w, address.Command{Action: address.ActionCancel}))
			forged.Signature = w.sign("another text").Signature
			if code := c.run(Command{Intent: forged}); code != BadSignature {
				t.Errorf("a signature of another text: %s", code)
			}
		})
	}
	before := frame(c.s)
	if code := c.ask(btcWallet(14), address.Command{Action: address.ActionOpenAccount}, func(a *address.Command) { a.Nonce = 1 }); code != BadNonce || frame(c.s) != before {
		t.Errorf("opening with nonce 1: %s", code)
	}
}

// Plants a seventeenth open outflow: "16 open outflows of the account already is
// OUTFLOW_CAP"; others go on, and a place is free again when one is paid or
// cancelled (spec: outflows §10, 58).
func TestFault58_SeventeenthOpenOutflow(t *testing.T) {
	c, lender, borrower := lent(t)
	id := accountOf(c, borrower)
	for i := range MaxAccountOpen {
		if code := c.ask(borrower, c.borrowUSDT("100000000")); code != OK {
			t.Fatalf("outflow %d: %s", i+1, code)
		}
	}
	if code := c.ask(borrower, c.borrowUSDT("100000000")); code != OutflowCap {
		t.Fatalf("the 17th: %s", code)
	}
	if code := c.ask(lender, c.payout(address.ActionWithdraw, "usdt.eth", "100000000", payeeETH, "10000000")); code != OK {
		t.Errorf("another account: %s", code)
	}
	first := c.s.Queue.keys()[0]
	debt := c.s.Accounts.at(id).position("usdt.eth").Debt
	if code := c.ask(borrower, address.Command{Action: address.ActionCancelOutflow, Outflow: first}); code != OK {
		t.Fatal(code)
	}
	if o := c.s.Outflows.at(first); o.State != Refunded {
		t.Errorf("cancelled outflow is %s", o.State)
	}
	if got := c.s.Accounts.at(id).position("usdt.eth").Debt; !got.Less(debt) {
		t.Errorf("the cancel left the debt at %s", got)
	}
	if code := c.ask(borrower, address.Command{Action: address.ActionCancelOutflow, Outflow: first}); code != NotAllowed {
		t.Errorf("cancelled twice: %s", code)
	}
	if code := c.ask(borrower, c.borrowUSDT("100000000")); code != OK {
		t.Errorf("in the free place: %s", code)
	}
	// Planned, it is beyond a cancel: a signature may exist.
	c.tick(1000)
	planned := c.payments()
	if len(planned) == 0 {
		t.Fatal("nothing was planned")
	}
	o := c.s.Outflows.at(planned[0].Outflows[0])
	if code := c.ask(borrower, address.Command{Action: address.ActionCancelOutflow, Outflow: o.ID}); code != NotAllowed || c.s.Outflows.at(o.ID).State != Planned {
		t.Errorf("cancelled while planned: %s", code)
	}
}

// LIMIT is the whole ledger's: retryable, so the nonce is unchanged.
func TestLimitOfOpenOutflows(t *testing.T) {
	c, _, borrower := lent(t)
	for i := uint64(0); c.s.Live.len()+c.s.Queue.len() < MaxOpenOutflows; i++ {
		c.s.Live.put(1<<40+i, 1)
	}
	before := frame(c.s)
	in := Command{Intent: borrower.sign(c.text(borrower, c.borrowUSDT("1000000000")))}
	if code := c.s.Apply(in); code != Limit || frame(c.s) != before {
		t.Fatalf("with %d open: %s, changed: %v", MaxOpenOutflows, code, frame(c.s) != before)
	}
	c.s.Live.delete(1 << 40)
	if code := c.s.Apply(in); code != OK {
		t.Errorf("the same text with one less open: %s", code)
	}
}

// A withdrawal of everything leaves nothing behind, and the account can say so
// in one word.
func TestWithdrawMax(t *testing.T) {
	c, lender, _ := lent(t)
	cmd := c.payout(address.ActionWithdraw, "usdt.eth", "1", payeeETH, "10000000")
	cmd.Amount = c.s.Grammar().MaxAmount("usdt.eth")
	if code := c.ask(lender, cmd); code != OK {
		t.Fatal(code)
	}
	if a := c.s.Accounts.at(accountOf(c, lender)); len(a.Positions) != 0 || a.Outflows != 1 {
		t.Errorf("account %+v", a)
	}
	if o := c.s.Outflows.at(c.s.Queue.keys()[0]); o.Gross.Less(n("100000000000")) {
		t.Errorf("withdrew %s", o.Gross)
	}
}

// What the preview shows is what Apply does, and it changes nothing.
func TestPreview(t *testing.T) {
	c, _, borrower := lent(t)
	for units, code := range map[string]Code{"20000000000": OK, "41000000000": HealthFactor, "0": BelowMin} {
		before := Marshal(c.s)
		_, got := c.s.Preview(c.text(borrower, c.borrowUSDT(units)))
		if got != code || string(Marshal(c.s)) != string(before) {
			t.Errorf("%s: %s, want %s", units, got, code)
		}
	}
	if _, code := c.s.Preview("hello"); code != Malformed {
		t.Error(code)
	}
	after, code := c.s.Preview(c.text(borrower, c.borrowUSDT("20000000000")))
	if code != OK || after.Outflows.len() != c.s.Outflows.len()+1 {
		t.Errorf("%s, %d outflows", code, after.Outflows.len())
	}
	if fee, most, code := c.s.Quote("usdt.eth", payeeETH, fixed.New(1_000_000_000)); code != OK || fee.IsZero() || most.Less(fee) {
		t.Errorf("quote %s, at most %s, %s", fee, most, code)
	}
}
