package testnet

import (
	"fmt"
	"io"
)

// Describe says where everything is and what to try next.
func (n *Network) Describe(w io.Writer) {
	fmt.Fprintf(w, "\nThe network is up: %s, any %d of %d members sign.\n\n", n.Genesis.ClusterName(), n.Genesis.Epoch.M, n.Genesis.Epoch.N())
	for _, np := range n.Nodes {
		fmt.Fprintf(w, "  %s  API %s  log %s\n", np.Name, np.API, np.Proc().LogPath())
	}
	fmt.Fprintf(w, "  Bitcoin regtest  %s (user and password in %s/node-1/node.toml)\n  Ethereum dev     %s, test USDT %s\n\n",
		n.Bitcoin.RPC().URL, n.Dir, n.Ethereum.URL(), n.Ethereum.Token().Hex())
	a, d := n.Nodes[len(n.Nodes)-1].API, n.Dir
	fmt.Fprintf(w, `Try next, in another terminal:

  export COFFER_API=%s
  coffer wallet new --file bob.json && coffer account open --file bob.json          # a lender
  coffer deposit-address usdt.eth --file bob.json
  coffer testnet faucet USDT ADDRESS 30000 --dir %s
  coffer wallet new --file alice.json                                                # a borrower
  coffer account open --file alice.json
  coffer deposit-address btc --file alice.json
  coffer testnet faucet BTC ADDRESS 1 --dir %s
  coffer position --file alice.json
  coffer borrow 10000 usdt.eth --to 0x71C7656EC7ab88b098defB751B7401B5f6d8976F --file alice.json
  coffer testnet price BTC 12000 --dir %s                                           # a fall; alice is liquidated in a minute
  coffer liquidator --file bob.json
  coffer testnet mine 6 --dir %s
  coffer testnet stop node-2 --kill --dir %s                                        # the others go on; start brings it back

Ctrl-C stops everything and keeps %s.
`, a, d, d, d, d, d, d)
}
