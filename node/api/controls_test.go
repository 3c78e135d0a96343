package api_test

import (
	"errors"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// A second wallet, a payout list with what is pending, and a cancel, as a client
// asks for them; each refusal by its code.
func TestControlsOfAnAccount(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	id := w.borrower()
	raw, err := client.ParseAccount(id)
	if err != nil {
		t.Fatal(err)
	}
	spare, err := client.NewWallet(w.wallet.Pin())
	if err != nil {
		t.Fatal(err)
	}
	btc, eth := w.wallet.SignerBTC(), spare.SignerETH()
	ask := func(by, co client.Signer, cmd address.Command) error {
		t.Helper()
		cmd.Account, cmd.Signer = raw, by.ID()
		a, err := w.client.Prepare(w.ctx, cmd)
		if err != nil && !errors.Is(err, address.ErrDestination) {
			t.Fatal(err)
		}
		_, err = w.client.SubmitCosigned(w.ctx, by, co, a)
		return err
	}
	account := func() *client.Account {
		a, err := w.client.Account(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	link := address.Command{Action: address.ActionLinkWallet, NewWallet: eth.ID()}
	if err := ask(btc, nil, link); !client.IsCode(err, "BAD_SIGNATURE") {
		t.Errorf("link without the new wallet's signature: %v", err)
	}
	if err := ask(btc, btc, link); !client.IsCode(err, "SCHEME_UNSUPPORTED") {
		t.Errorf("link with the controller's signature twice: %v", err)
	}
	if err := ask(btc, eth, address.Command{Action: address.ActionCancel}); !client.IsCode(err, "MALFORMED") {
		t.Errorf("cancel with two signatures: %v", err)
	}
	unlink := address.Command{Action: address.ActionUnlinkWallet, Wallet: btc.ID()}
	if err := ask(btc, nil, unlink); !client.IsCode(err, "SOLE_ACCOUNT") {
		t.Errorf("unlink the only wallet: %v", err)
	}
	if err := ask(btc, eth, link); err != nil {
		t.Fatal(err)
	}
	if err := ask(btc, eth, link); !client.IsCode(err, "ACCOUNT_LINKED") {
		t.Errorf("linked twice: %v", err)
	}
	if got := account().Controllers; len(got) != 2 || got[1] != eth.ID().String() {
		t.Errorf("controllers %v", got)
	}
	if account().PayoutList != nil {
		t.Error("a payout list from the beginning")
	}
	if err := ask(eth, nil, address.Command{Action: address.ActionAddPayoutAddress, To: eth.ID()}); err != nil {
		t.Fatal(err)
	}
	if err := ask(btc, nil, address.Command{Action: address.ActionRequirePayoutList, On: true}); err != nil {
		t.Fatal(err)
	}
	l := account().PayoutList
	if l == nil || !l.Required || l.Ends != nil || len(l.Addresses) != 1 || !l.Addresses[0].Pending || l.Addresses[0].To != eth.ID().String() {
		t.Fatalf("payout list %+v", l)
	}
	if _, err := w.client.Borrow(w.ctx, btc, id, client.Payout{Pool: "usdt.eth", Amount: "100000000", To: eth.ID().String()}); !client.IsCode(err, "DESTINATION_NOT_LISTED") {
		t.Errorf("borrow to a pending address: %v", err)
	}
	if err := ask(btc, nil, address.Command{Action: address.ActionRequirePayoutList}); err != nil || account().PayoutList.Ends == nil {
		t.Errorf("the end is not shown: %v", err)
	}
	if err := ask(btc, nil, address.Command{Action: address.ActionRemovePayoutAddress, To: eth.ID()}); err != nil || len(account().PayoutList.Addresses) != 0 {
		t.Errorf("removed: %v", err)
	}
	g, err := w.client.Grammar(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	repay := address.Command{Action: address.ActionRepayFromSupply, Pool: "usdt.eth", Amount: g.MaxAmount("usdt.eth")}
	if err := ask(btc, nil, repay); !client.IsCode(err, "NO_DEBT") {
		t.Errorf("repay from supply: %v", err)
	}
	next := account().NextNonce
	if err := ask(eth, nil, address.Command{Action: address.ActionCancel}); err != nil || account().NextNonce != next+1 {
		t.Errorf("cancel: %v", err)
	}
}

// A simple loan: one request, then coins. The node's text is the client's.
func TestASimpleLoanThroughTheAPI(t *testing.T) {
	w := serve(t, apitest.NewWithKeys(t))
	w.borrower() // and a pool to borrow from
	signer, eth := w.wallet.SignerBTC(), w.wallet.SignerETH()
	terms := client.LoanTerms{
		Collateral: "100000000", CollateralPool: "btc", Amount: "1000000000", Pool: "usdt.eth",
		To: eth.ID().String(), RefundTo: signer.ID().String(),
	}
	a, err := w.client.PrepareLoan(w.ctx, signer.ID(), terms)
	if err != nil {
		t.Fatal(err)
	}
	status, _, r := w.post("/v1/requests/render", client.RenderRequest{
		Action: address.ActionOpenLoan, Signer: signer.ID().String(), Collateral: terms.Collateral, CollateralPool: "btc",
		Amount: terms.Amount, Pool: terms.Pool, To: terms.To, MaxFee: a.Command.MaxFee.Units, RefundTo: terms.RefundTo,
	})
	if status != 200 || r["text"] != a.Text {
		t.Errorf("the node renders\n%v\nwant\n%s", r, a.Text)
	}
	if p, err := w.client.Preview(w.ctx, a); err != nil || p.Code != "OK" {
		t.Fatalf("preview %+v %v", p, err)
	}
	done, err := w.client.Submit(w.ctx, signer, a)
	if err != nil {
		t.Fatal(err)
	}
	loan := func() *client.Loan {
		t.Helper()
		acc, err := w.client.Account(w.ctx, done.Account)
		if err != nil || acc.Loan == nil {
			t.Fatalf("%+v %v", acc, err)
		}
		return acc.Loan
	}
	if l := loan(); l.Status != "action_required" || l.Phase != "WAITING" || l.Missing != "100000000" {
		t.Errorf("opened: %+v", l)
	}
	w.Deposit(done.Account, "btc", ledger.PurposeSupply, 40_000_000)
	if l := loan(); l.Status != "action_required" || l.Missing == "" || l.Missing == "100000000" {
		t.Errorf("a part: %+v", l)
	}
	w.Deposit(done.Account, "btc", ledger.PurposeSupply, 60_000_000)
	w.Prices(map[string]uint64{"btc": 50_000, "eth": 2_500, "usdt.eth": 1})
	w.Tick(20e9)
	l := loan()
	if l.Status != "active" || l.Phase != "GRANTED" || l.Outflow == 0 || l.Missing != "" {
		t.Fatalf("all of it: %+v", l)
	}
	// The next one has an account of its own.
	if b, err := w.client.PrepareLoan(w.ctx, signer.ID(), terms); err != nil || b.Command.Nonce != a.Command.Nonce+1 || b.Command.Account == a.Command.Account {
		t.Errorf("the next: %+v %v", b.Command, err)
	}
}
