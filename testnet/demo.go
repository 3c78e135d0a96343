package testnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/ethereum/go-ethereum/common"
)

// Result is what a demo saw. It is right only as far as OK says so.
type Result struct {
	OK                 bool    `json:"ok"`
	Steps              []Step  `json:"steps"`
	ReadySeconds       float64 `json:"ready_seconds"`
	FirstPayoutSeconds float64 `json:"first_payout_seconds"`
	TotalSeconds       float64 `json:"total_seconds"`
}

// Step is one line of the demo's table.
type Step struct {
	Name    string   `json:"name"`
	Chain   string   `json:"chain"`
	TxID    *string  `json:"txid"`    // nil: nothing on a chain
	Signers []string `json:"signers"` // members of the session whose signature is on the chain
	Seconds float64  `json:"seconds"`

	what string
}

// Print draws the table for people.
func (r Result) Print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "\nSTEP\tWHAT\tTRANSACTION\tSIGNERS\tSECONDS")
	for _, s := range r.Steps {
		tx, signers := "-", "-"
		if s.TxID != nil {
			tx = *s.TxID
		}
		if len(s.Signers) > 0 {
			signers = fmt.Sprint(s.Signers)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.1f\n", s.Name, s.what, tx, signers, s.Seconds)
	}
	t.Flush()
	fmt.Fprintf(w, "\nready after %.0f s, first payout after %.0f s, all after %.0f s\n", r.ReadySeconds, r.FirstPayoutSeconds, r.TotalSeconds)
}

const (
	demoTimeout = 10 * time.Minute
	demoPoll    = 100 * time.Millisecond
	usdtPool    = "usdt.eth"
	btcPool     = "btc"
	oneBTC      = 100_000_000
	usdt        = 1_000_000
)

// demo is one run of the worked example.
type demo struct {
	*Network
	say      io.Writer
	result   *Result
	leader   string
	follower *client.Client

	lender, borrower *person
}

// person is a wallet and its account at a follower.
type person struct {
	*client.Client
	wallet  *client.Wallet
	signer  client.Signer
	account string
}

// Demo carries the worked example of spec lending §17 across both chains. Every step is looked up on the chains' own
// nodes; a member's word decides nothing but who signed, and that is compared with the signature on the chain.
func (n *Network) Demo(ctx context.Context, say io.Writer) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	r := Result{Steps: []Step{}, ReadySeconds: time.Since(n.Built).Seconds()}
	d := &demo{Network: n, say: say, result: &r}
	err := d.run(ctx)
	r.TotalSeconds = time.Since(n.Built).Seconds()
	return r, err
}

func (d *demo) run(ctx context.Context) error {
	if err := d.pickFollower(ctx); err != nil {
		return err
	}
	var err error
	if d.lender, err = d.person(ctx, (*client.Wallet).SignerETH); err != nil {
		return fmt.Errorf("lender: %w", err)
	}
	if d.borrower, err = d.person(ctx, (*client.Wallet).SignerBTC); err != nil {
		return fmt.Errorf("borrower: %w", err)
	}
	to, err := freshEthereum()
	if err != nil {
		return err
	}
	// Both deposits are on their way at once: the chains' confirmations take their time.
	supplied, err := d.fundToken(ctx, d.lender, "supply", 60_000*usdt)
	if err != nil {
		return fmt.Errorf("supply: %w", err)
	}
	deposited, err := d.fundBitcoin(ctx, d.borrower)
	if err != nil {
		return fmt.Errorf("deposit: %w", err)
	}
	steps := []struct {
		name, chain string
		do          func(context.Context, *Step) error
	}{
		{"supply", "eth", func(ctx context.Context, s *Step) error { return d.supply(ctx, s, supplied) }},
		{"deposit", "btc", func(ctx context.Context, s *Step) error { return d.deposit(ctx, s, deposited) }},
		{"borrow", "eth", func(ctx context.Context, s *Step) error { return d.borrow(ctx, s, to, 20_000*usdt, "2.00") }},
		{"refused", "eth", func(ctx context.Context, s *Step) error { return d.refused(ctx, s, to, 25_000*usdt) }},
		{"borrow-more", "eth", func(ctx context.Context, s *Step) error { return d.borrow(ctx, s, to, 15_000*usdt, "1.14") }},
		{"kill", "eth", d.kill},
		{"repay", "eth", d.repay},
		{"withdraw", "btc", d.withdraw},
	}
	for _, st := range steps {
		s := Step{Name: st.name, Chain: st.chain, Signers: []string{}}
		start := time.Now()
		if err := st.do(ctx, &s); err != nil {
			return fmt.Errorf("%s: %w", st.name, err)
		}
		s.Seconds = time.Since(start).Seconds()
		d.result.Steps = append(d.result.Steps, s)
		fmt.Fprintf(d.say, "%-12s %s (%.1f s)\n", s.Name, s.what, s.Seconds)
	}
	return nil
}

// pickFollower: requests go to a node that does not lead, so that forwarding is part of what is shown.
func (d *demo) pickFollower(ctx context.Context) error {
	for _, np := range d.Nodes {
		st, err := np.Client.Status(ctx)
		if err != nil {
			return err
		}
		d.leader = st.Leader
		if st.Role != "leader" && st.Leader != "" {
			d.follower = np.Client
			return nil
		}
	}
	return errors.New("no follower found")
}

func (d *demo) person(ctx context.Context, signer func(*client.Wallet) client.Signer) (*person, error) {
	cl, err := d.follower.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		return nil, err
	}
	w, err := client.NewWallet(pin)
	if err != nil {
		return nil, err
	}
	p := &person{wallet: w, signer: signer(w)}
	if p.Client, err = client.New(d.follower.URL(), pin); err != nil {
		return nil, err
	}
	a, err := p.Open(ctx, p.signer)
	if err != nil {
		return nil, fmt.Errorf("open account: %w", err)
	}
	p.account = a.ID
	return p, nil
}

func (p *person) address(ctx context.Context, asset, purpose string) (string, error) {
	a, err := p.AssetNamed(ctx, asset)
	if err != nil {
		return "", err
	}
	at, err := p.DepositAddress(ctx, p.account, a, purpose)
	return at.Address, err
}

func (d *demo) fundToken(ctx context.Context, p *person, purpose string, units int64) (common.Address, error) {
	at, err := p.address(ctx, usdtPool, purpose)
	if err != nil {
		return common.Address{}, err
	}
	to := common.HexToAddress(at)
	_, err = d.Ethereum.FundToken(ctx, to, big.NewInt(units))
	return to, err
}

func (d *demo) fundBitcoin(ctx context.Context, p *person) (string, error) {
	at, err := p.address(ctx, btcPool, "supply")
	if err != nil {
		return "", err
	}
	return d.Network.Bitcoin.Fund(ctx, at, oneBTC)
}

// credited waits until an account's inflow of an amount at an address is credited, once.
func (d *demo) credited(ctx context.Context, p *person, asset, purpose string, amount string) (client.Inflow, error) {
	var found client.Inflow
	err := poll(ctx, func() (bool, error) {
		in, err := p.Inflows(ctx, p.account)
		if err != nil {
			return false, nil // the node may be busy; the context bounds the wait
		}
		count := 0
		for _, i := range in.Inflows {
			if i.Asset == asset && i.Purpose == purpose && i.Amount == amount {
				count++
				found = i
			}
		}
		if count > 1 {
			return false, fmt.Errorf("%s was counted %d times", asset, count)
		}
		return count == 1 && (found.Status == "active" || found.Status == "completed"), nil
	})
	return found, err
}

func (d *demo) supply(ctx context.Context, s *Step, at common.Address) error {
	in, err := d.credited(ctx, d.lender, usdtPool, "supply", fmt.Sprint(60_000*usdt))
	if err != nil {
		return err
	}
	if left, err := d.Ethereum.TokenBalance(ctx, at); err != nil || left.Sign() != 0 {
		return fmt.Errorf("%s USDT left at the deposit address (%w)", left, err)
	}
	s.what = "60,000 USDT swept into the hot address and credited"
	return d.swept(ctx, s, in)
}

// swept looks up the sweep that carried an inflow.
func (d *demo) swept(ctx context.Context, s *Step, in client.Inflow) error {
	o, err := d.follower.Outflow(ctx, in.Sweep)
	if err != nil {
		return fmt.Errorf("sweep %d: %w", in.Sweep, err)
	}
	got, err := d.tokenPaid(ctx, o.TxID, common.HexToAddress(o.To))
	if err != nil {
		return err
	}
	if got.String() != in.Amount {
		return fmt.Errorf("the sweep %s brought %s, credited were %s", o.TxID, got, in.Amount)
	}
	return d.ethereumSigners(ctx, s, o)
}

func (d *demo) deposit(ctx context.Context, s *Step, txid string) error {
	if _, err := d.credited(ctx, d.borrower, btcPool, "supply", fmt.Sprint(oneBTC)); err != nil {
		return err
	}
	if _, err := d.Network.Bitcoin.RPC().Transaction(ctx, txid); err != nil {
		return fmt.Errorf("deposit transaction on the chain: %w", err)
	}
	// Credited it earns; collateral it is once its block is final.
	err := poll(ctx, func() (bool, error) {
		p, err := d.borrower.position(ctx, btcPool)
		return err == nil && p.Collateral == fmt.Sprint(oneBTC), nil
	})
	s.TxID, s.what = &txid, "1 BTC credited and final"
	return err
}

func (p *person) position(ctx context.Context, pool string) (client.Position, error) {
	a, err := p.Account(ctx, p.account)
	if err != nil {
		return client.Position{}, err
	}
	i := slices.IndexFunc(a.Health.Positions, func(x client.Position) bool { return x.Pool == pool })
	if i < 0 {
		return client.Position{}, fmt.Errorf("no position in %s", pool)
	}
	return a.Health.Positions[i], nil
}

// borrow signs and posts a borrow and waits until exactly amount less the fee shown before signing is on the chain.
func (d *demo) borrow(ctx context.Context, s *Step, to common.Address, amount int64, health string) error {
	before, err := d.Ethereum.TokenBalance(ctx, to)
	if err != nil {
		return err
	}
	o, err := d.payout(ctx, d.borrower, address.ActionBorrow, to, amount)
	if err != nil {
		return err
	}
	err = poll(ctx, func() (bool, error) {
		now, err := d.Ethereum.TokenBalance(ctx, to)
		return err == nil && now.Cmp(before) > 0, nil
	})
	if err != nil {
		return fmt.Errorf("nothing arrived at %s: %w", to, err)
	}
	if d.result.FirstPayoutSeconds == 0 {
		d.result.FirstPayoutSeconds = time.Since(d.Built).Seconds()
	}
	if o, err = d.paid(ctx, o.ID); err != nil {
		return err
	}
	after, err := d.Ethereum.TokenBalance(ctx, to)
	if err != nil {
		return err
	}
	if got := new(big.Int).Sub(after, before); got.String() != o.Net {
		return fmt.Errorf("%s arrived at %s, owed are %s", got, to, o.Net)
	}
	if err := d.showsHealth(ctx, health); err != nil {
		return err
	}
	s.what = fmt.Sprintf("%s USDT paid natively, fee %s, health factor %s", whole(o.Net), whole(o.Fee), health)
	return d.ethereumSigners(ctx, s, o)
}

func (d *demo) showsHealth(ctx context.Context, want string) error {
	a, err := d.borrower.Account(ctx, d.borrower.account)
	if err != nil {
		return err
	}
	if a.Health.HealthFactorShown == nil || *a.Health.HealthFactorShown != want {
		return fmt.Errorf("health factor shown is %s (%s), want %s", deref(a.Health.HealthFactorShown), a.Health.Unknown, want)
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

// payout posts a request for coins and checks that the outflow's fee is the one quoted before signing.
func (d *demo) payout(ctx context.Context, p *person, action string, to common.Address, amount int64) (*client.OutflowDetail, error) {
	pool, err := p.Pool(ctx, usdtPool)
	if err != nil {
		return nil, err
	}
	a, err := p.PreparePayout(ctx, action, p.signer.ID(), p.account, client.Payout{Pool: usdtPool, Amount: fmt.Sprint(amount), To: to.Hex()})
	if err != nil {
		return nil, err
	}
	req, err := p.Submit(ctx, p.signer, a)
	if err != nil {
		return nil, err
	}
	if req.Outflow == 0 {
		return nil, fmt.Errorf("accepted without an outflow (%s)", req.Code)
	}
	var o *client.OutflowDetail
	err = poll(ctx, func() (bool, error) {
		if o, err = p.Outflow(ctx, req.Outflow); err != nil {
			return false, nil
		}
		if o.State == "REFUNDED" || o.State == "HOLD" {
			return false, fmt.Errorf("outflow %d is %s", o.ID, o.State)
		}
		return o.State != "QUEUED", nil
	})
	if err != nil {
		return nil, err
	}
	if o.Fee != pool.PayoutFee.Fee {
		return nil, fmt.Errorf("fee is %s, shown before signing was %s", o.Fee, pool.PayoutFee.Fee)
	}
	return o, nil
}

// paid waits until an Ethereum outflow is final in the ledger, and looks at the chain: one transfer of exactly its
// net amount.
func (d *demo) paid(ctx context.Context, id uint64) (*client.OutflowDetail, error) {
	o, err := d.follower.WaitOutflow(ctx, id, demoPoll, client.Settled)
	if err != nil {
		return nil, err
	}
	if o.State != "PAID" {
		return nil, fmt.Errorf("outflow %d is %s", id, o.State)
	}
	got, err := d.tokenPaid(ctx, o.TxID, common.HexToAddress(o.To))
	if err != nil {
		return nil, err
	}
	if got.String() != o.Net {
		return nil, fmt.Errorf("%s pays %s, owed are %s", o.TxID, got, o.Net)
	}
	return o, nil
}

// refused asks for too much and checks that nothing changed but the Intent nonce.
func (d *demo) refused(ctx context.Context, s *Step, to common.Address, amount int64) error {
	before, err := d.borrower.Account(ctx, d.borrower.account)
	if err != nil {
		return err
	}
	chain, err := d.Ethereum.TokenBalance(ctx, to)
	if err != nil {
		return err
	}
	_, err = d.borrower.Borrow(ctx, d.borrower.signer, d.borrower.account, client.Payout{Pool: usdtPool, Amount: fmt.Sprint(amount), To: to.Hex()})
	if !client.IsCode(err, "HEALTH_FACTOR") {
		return fmt.Errorf("want the refusal HEALTH_FACTOR, got: %w", err)
	}
	after, err := d.borrower.Account(ctx, d.borrower.account)
	if err != nil {
		return err
	}
	if after.NextNonce != before.NextNonce+1 {
		return fmt.Errorf("Intent nonce went from %d to %d", before.NextNonce, after.NextNonce)
	}
	if after.Outflows != before.Outflows || deref(after.Health.HealthFactorShown) != deref(before.Health.HealthFactorShown) {
		return errors.New("the refused request changed more than the Intent nonce")
	}
	if now, err := d.Ethereum.TokenBalance(ctx, to); err != nil || now.Cmp(chain) != 0 {
		return fmt.Errorf("the refused request moved coins: %s to %s (%w)", chain, now, err)
	}
	s.what = "25,000 USDT more refused: health factor would be 0.88"
	return nil
}

// killTries: a session takes about two seconds, of which the kill has to hit the part before the signature.
const killTries = 3

// kill ends a member of a running session with SIGKILL and watches the payment happen once, without it.
func (d *demo) kill(ctx context.Context, s *Step) error {
	for range killTries {
		again, err := d.killOnce(ctx, s)
		if err != nil || !again {
			return err
		}
	}
	return fmt.Errorf("%d sessions were over before the kill", killTries)
}

func (d *demo) killOnce(ctx context.Context, s *Step) (again bool, err error) {
	to, err := freshEthereum()
	if err != nil {
		return false, err
	}
	o, err := d.payout(ctx, d.lender, address.ActionWithdraw, to, 1_000*usdt)
	if err != nil {
		return false, err
	}
	victim, err := d.joinedMember(ctx, o)
	if err != nil {
		return false, err
	}
	if victim < 0 {
		_, err := d.paid(ctx, o.ID)
		return true, err
	}
	np := d.Nodes[victim]
	np.Proc().Kill()
	killed := time.Now()
	o, err = d.paid(ctx, o.ID)
	if err != nil {
		return false, fmt.Errorf("after the kill of %s: %w", np.Name, err)
	}
	if err := d.ethereumSigners(ctx, s, o); err != nil {
		return false, err
	}
	if err := d.StartNode(ctx, victim); err != nil {
		return false, fmt.Errorf("restart %s: %w", np.Name, err)
	}
	if slices.Contains(s.Signers, np.Name) {
		return true, d.caughtUp(ctx, victim) // the signature was faster than the kill
	}
	if got, err := d.Ethereum.TokenBalance(ctx, to); err != nil || got.String() != o.Net {
		return false, fmt.Errorf("%s at %s, owed once are %s (%w)", got, to, o.Net, err)
	}
	s.what = fmt.Sprintf("%s killed in session, 1,000 USDT paid once without it, final %.1f s later; it caught up", np.Name, time.Since(killed).Seconds())
	return false, d.caughtUp(ctx, victim)
}

// joinedMember returns a member that recorded joining a session of the outflow, unless the signature exists by then.
// A follower is taken, other than the one the demo talks to.
func (d *demo) joinedMember(ctx context.Context, o *client.OutflowDetail) (int, error) {
	victim := -1
	err := poll(ctx, func() (bool, error) {
		for i, np := range d.Nodes {
			now, err := np.Client.Outflow(ctx, o.ID)
			if err != nil {
				continue
			}
			if len(now.Local.Signed) > 0 || now.State != "PLANNED" {
				return true, nil
			}
			if np.Name == d.leader || np.Client == d.follower {
				continue
			}
			for _, run := range now.Local.Running {
				if slices.Contains(run.Parties, np.Name) {
					victim = i
					return true, nil
				}
			}
		}
		return false, nil
	})
	return victim, err
}

// caughtUp waits until a restarted node stands at the same head as another at one height.
func (d *demo) caughtUp(ctx context.Context, i int) error {
	return poll(ctx, func() (bool, error) {
		a, err := d.Nodes[i].Client.Cluster(ctx)
		if err != nil {
			return false, nil
		}
		b, err := d.follower.Cluster(ctx)
		if err != nil || a.LogIndex != b.LogIndex {
			return false, nil
		}
		if a.Head != b.Head {
			return false, fmt.Errorf("%s stands at head %s at height %d, others at %s", d.Nodes[i].Name, a.Head, a.LogIndex, b.Head)
		}
		return true, nil
	})
}

func (d *demo) repay(ctx context.Context, s *Step) error {
	p, err := d.borrower.position(ctx, usdtPool)
	if err != nil {
		return err
	}
	units, ok := new(big.Int).SetString(p.FullRepay, 10)
	if !ok {
		return fmt.Errorf("full repayment is %q", p.FullRepay)
	}
	// What is beyond the debt becomes supply, and a supply below the minimum would wait in suspense.
	units.Add(units, big.NewInt(2*usdt))
	if _, err := d.fundToken(ctx, d.borrower, "repay", units.Int64()); err != nil {
		return err
	}
	in, err := d.credited(ctx, d.borrower, usdtPool, "repay", units.String())
	if err != nil {
		return err
	}
	if p, err = d.borrower.position(ctx, usdtPool); err != nil {
		return err
	}
	if p.Owed != "0" {
		return fmt.Errorf("%s still owed after a full repayment", p.Owed)
	}
	s.what = fmt.Sprintf("%s USDT repaid with interest, nothing owed, the rest became supply", whole(units.String()))
	return d.swept(ctx, s, in)
}

// withdraw takes all Bitcoin back to a new P2WPKH address and reads the transaction from the chain.
func (d *demo) withdraw(ctx context.Context, s *Step) error {
	cl, err := d.follower.Cluster(ctx)
	if err != nil {
		return err
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		return err
	}
	fresh, err := client.NewWallet(pin)
	if err != nil {
		return err
	}
	to := fresh.SignerBTC().ID()
	req, err := d.borrower.Withdraw(ctx, d.borrower.signer, d.borrower.account, client.Payout{Pool: btcPool, Amount: "max", To: to.String()})
	if err != nil {
		return err
	}
	o, err := d.follower.WaitOutflow(ctx, req.Outflow, demoPoll, client.Settled)
	if err != nil {
		return err
	}
	if o.State != "PAID" {
		return fmt.Errorf("outflow %d is %s", o.ID, o.State)
	}
	tx, err := d.Network.Bitcoin.RPC().Transaction(ctx, o.TxID)
	if err != nil {
		return fmt.Errorf("transaction %s: %w", o.TxID, err)
	}
	script, err := address.ScriptOf(to.Network(), to.Address)
	if err != nil {
		return err
	}
	var paid int64
	for _, out := range tx.TxOut {
		if bytes.Equal(out.PkScript, script) {
			paid += out.Value
		}
	}
	if fmt.Sprint(paid) != o.Net || o.Gross != fmt.Sprint(oneBTC) {
		return fmt.Errorf("%s pays %d sats of %s, owed are %s", o.TxID, paid, o.Gross, o.Net)
	}
	s.what = fmt.Sprintf("%d sats back on Bitcoin, fee %s", paid, o.Fee)
	return d.bitcoinSigners(ctx, s, o, tx)
}

// poll asks until done, an error, or the context's end.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func freshEthereum() (a common.Address, err error) {
	_, err = rand.Read(a[:])
	return a, err
}

// whole writes base units of the test token as whole coins.
func whole(units string) string {
	v, ok := new(big.Int).SetString(units, 10)
	if !ok {
		return units
	}
	q, r := new(big.Int).QuoRem(v, big.NewInt(usdt), new(big.Int))
	return fmt.Sprintf("%s.%06d", q, r.Int64())
}
