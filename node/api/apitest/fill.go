package apitest

import (
	"encoding/hex"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
)

// Fill has accounts of its own ask for payouts until n outflows are open. No
// time passes, so none is planned.
func (c *Cluster) Fill(n int) {
	c.t.Helper()
	g, v := c.View().Grammar(), c.View()
	pin := &client.Pin{Cluster: v.Genesis.ClusterName(), Chains: map[string]string{address.ChainBTC: BitcoinCAIP2, address.ChainETH: EthereumCAIP2}}
	const each = 20_000 // sats
	missing := func() int {
		v := c.View()
		return n - v.Queue.Len() - v.Live.Len()
	}
	for missing() > 0 {
		w, err := client.NewWallet(pin)
		if err != nil {
			c.t.Fatal(err)
		}
		by := w.SignerETH()
		cmd := address.Command{
			Action: address.ActionOpenAccount, Signer: by.ID(), Cluster: pin.Cluster, Account: address.AccountID(pin.Cluster, by.ID()),
			Expires: int64(v.Time()) + 300,
		}
		c.must(g, by, cmd)
		c.Deposit(hex.EncodeToString(cmd.Account[:]), "btc", ledger.PurposeSupply, each*ledger.MaxAccountOpen)
		cmd.Action, cmd.Pool, cmd.Amount, cmd.MaxFee = address.ActionWithdraw, "btc", g.Amount("btc", "20000"), g.Amount("btc", "10000")
		cmd.To = address.CAIP10{Namespace: "bip122", Reference: BitcoinCAIP2[len("bip122:"):], Address: w.SignerBTC().ID().Address}
		for range min(ledger.MaxAccountOpen, missing()) {
			cmd.Nonce++
			c.must(g, by, cmd)
		}
	}
}

// must has a command applied past the API.
func (c *Cluster) must(g *address.Grammar, by client.Signer, cmd address.Command) {
	c.t.Helper()
	text := g.Render(&cmd)
	sig, err := by.Sign(text)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in := &ledger.Intent{Scheme: by.Scheme(), Text: text, Signature: sig}
	if r := c.execute(ledger.Marshal(ledger.Command{Intent: in})); r.Code != ledger.OK {
		c.t.Fatalf("%s: %s", text, r.Code)
	}
}
