package node

import (
	"fmt"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/bitcoin"
	"github.com/coffer-network/coffer/chains/ethereum"
	"github.com/coffer-network/coffer/ledger"
)

// newChain connects one chain. A further chain is one line here.
func newChain(c ChainConfig, p ledger.ChainParam, assets []ledger.AssetParam) (chains.Chain, error) {
	switch c.Name {
	case ledger.Bitcoin:
		return bitcoin.New(bitcoin.Config{Chain: p, URL: c.URL, User: c.User, Password: c.Password})
	case ledger.Ethereum:
		return ethereum.New(ethereum.Config{Chain: p, Assets: assets, URL: c.URL})
	}
	return nil, fmt.Errorf("chain %q is not known to this release", c.Name)
}
