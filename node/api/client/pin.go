package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/ledger/address"
)

// Purposes of an account's addresses.
const (
	Supply = "supply"
	Repay  = "repay"
)

// Pin is what a client remembers of the cluster it first met. A node that later
// names others is refused, not followed (spec: requests §6). Keys outlive every
// epoch: one that changes is a theft or a move that certificates must prove.
type Pin struct {
	Cluster string            `json:"cluster"`
	Genesis string            `json:"genesis"`
	Keys    []PinnedKey       `json:"keys"`
	Chains  map[string]string `json:"chains"` // path word to CAIP-2
}

// PinnedKey is one master public key.
type PinnedKey struct {
	Key       string `json:"key"`
	Scheme    string `json:"scheme"`
	MasterPub string `json:"masterPub"`
}

// NewPin is what to remember of a cluster met for the first time.
func NewPin(cl *Cluster) (*Pin, error) {
	if len(cl.Keys) == 0 {
		return nil, errors.New("the cluster has no keys yet: try again when its first epoch is in force (coffer status)")
	}
	p := &Pin{Cluster: cl.Cluster, Genesis: cl.Genesis, Chains: map[string]string{}}
	for _, k := range cl.Keys {
		p.Keys = append(p.Keys, PinnedKey{Key: k.Key, Scheme: k.Scheme, MasterPub: k.MasterPub})
	}
	for _, c := range cl.Chains {
		p.Chains[c.Name] = c.CAIP2
	}
	// The Cluster string carries half of the genesis hash: the two must agree.
	if len(cl.Genesis) != 64 || len(cl.Cluster) < 32 || cl.Cluster[len(cl.Cluster)-32:] != cl.Genesis[:32] || !address.IsCluster(cl.Cluster) {
		return nil, errors.New("the node names a cluster that its genesis hash does not fit")
	}
	return p, nil
}

// PinError says that a node names another cluster than the pinned one.
type PinError struct{ Node, What, Pinned, Named string }

func (e *PinError) Error() string {
	return fmt.Sprintf("node %s is not of the pinned cluster: %s is %s, pinned %s", e.Node, e.What, e.Named, e.Pinned)
}

// Check compares what a node says with the pin.
func (p *Pin) Check(node string, cl *Cluster) error {
	if cl.Cluster != p.Cluster {
		return &PinError{node, "cluster", p.Cluster, cl.Cluster}
	}
	if cl.Genesis != p.Genesis {
		return &PinError{node, "genesis hash", p.Genesis, cl.Genesis}
	}
	for _, k := range p.Keys {
		i := slices.IndexFunc(cl.Keys, func(n Key) bool { return n.Key == k.Key })
		if i < 0 {
			return &PinError{node, "master key " + k.Key, k.MasterPub, "absent"}
		}
		if n := cl.Keys[i]; n.MasterPub != k.MasterPub || n.Scheme != k.Scheme {
			return &PinError{node, "master key " + k.Key, k.MasterPub, n.MasterPub}
		}
	}
	for name, caip2 := range p.Chains {
		if i := slices.IndexFunc(cl.Chains, func(c Chain) bool { return c.Name == name }); i < 0 || cl.Chains[i].CAIP2 != caip2 {
			return &PinError{node, "chain " + name, caip2, "another"}
		}
	}
	return nil
}

// MismatchError says that a node names a deposit address which the pinned keys
// do not give. It does not contain the address: what is not shown is not paid.
type MismatchError struct{ Node, Account, Chain, Purpose string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("node %s names another %s address on %s for account %s than the pinned keys give: do not use this node",
		e.Node, e.Purpose, e.Chain, e.Account)
}

var errNoPin = errors.New("addresses are checked against pinned keys: load or make a wallet first")

// ErrNoAddress: the account has no such address yet.
var ErrNoAddress = errors.New("no address yet")

// DepositAddress derives an account's address for an asset from the pinned
// keys, and returns it only if this node and every other one asked name the
// same (spec: requests §6.1).
func (c *Client) DepositAddress(ctx context.Context, account string, asset Asset, purpose string, others ...*Client) (Address, error) {
	if c.pin == nil {
		return Address{}, errNoPin
	}
	for _, n := range append([]*Client{c}, others...) {
		if _, err := n.Cluster(ctx); err != nil {
			return Address{}, err
		}
	}
	own, err := c.pin.Derive(account, asset.Chain, purpose)
	if err != nil {
		return Address{}, err
	}
	for _, n := range append([]*Client{c}, others...) {
		a, err := n.Account(ctx, account)
		if err != nil {
			return Address{}, err
		}
		i := slices.IndexFunc(a.Addresses, func(x Address) bool { return x.Chain == asset.Chain && x.Purpose == purpose })
		if i < 0 {
			return Address{}, fmt.Errorf("%s address on %s for account %s at node %s: %w", purpose, asset.Chain, account, n.base, ErrNoAddress)
		}
		if a.ID != account || a.Addresses[i] != own {
			return Address{}, &MismatchError{n.base, account, asset.Chain, purpose}
		}
	}
	return own, nil
}

// Derive computes an account's address from the pinned keys alone.
func (p *Pin) Derive(account, chain, purpose string) (Address, error) {
	id, err := ParseAccount(account)
	if err != nil {
		return Address{}, err
	}
	path := address.Path{Chain: chain}
	switch purpose {
	case Supply:
		path.Subaccount = address.DepositSubaccount(id)
	case Repay:
		path.Subaccount = address.RepaySubaccount(id)
	default:
		return Address{}, fmt.Errorf("purpose %q: want %s or %s", purpose, Supply, Repay)
	}
	caip2, known := p.Chains[chain]
	switch {
	case chain == address.ChainBTC && known:
		path.Role = address.RoleMinter
	case chain == address.ChainETH && known:
		path.Role = address.RoleDeposit
	default:
		return Address{}, fmt.Errorf("no deposit addresses on chain %q", chain)
	}
	i := slices.IndexFunc(p.Keys, func(k PinnedKey) bool { return k.Scheme == address.KeyECDSA })
	if i < 0 {
		return Address{}, errors.New("no ECDSA master key pinned")
	}
	pub, err := hex.DecodeString(p.Keys[i].MasterPub)
	if err != nil {
		return Address{}, fmt.Errorf("pinned key %s: %w", p.Keys[i].Key, err)
	}
	child, err := address.Derive(address.KeyECDSA, p.Keys[i].Key, pub, path)
	if err != nil {
		return Address{}, err
	}
	a := Address{
		Chain: chain, CAIP2: caip2, Purpose: purpose, Role: path.Role,
		Key: p.Keys[i].Key, Path: hex.EncodeToString(child.Path.Bytes()),
	}
	if chain == address.ChainETH {
		e, err := address.EthereumOf(child.Pub)
		a.Address = address.EthereumAddress(e)
		return a, err
	}
	network, err := bitcoinNetwork(caip2)
	if err != nil {
		return Address{}, err
	}
	a.Address, err = address.P2WPKH(network, child.Pub)
	return a, err
}

// AccountOf is the account that a signer opens in the pinned cluster.
func (p *Pin) AccountOf(signer address.CAIP10) string {
	id := address.AccountID(p.Cluster, signer)
	return hex.EncodeToString(id[:])
}

// CheckAddresses compares every address that a node names for an account with
// the one derived from the pinned keys.
func (c *Client) CheckAddresses(ctx context.Context, a *Account) error {
	if _, err := c.Cluster(ctx); err != nil {
		return err
	}
	if c.pin == nil {
		return errNoPin
	}
	for _, named := range a.Addresses {
		own, err := c.pin.Derive(a.ID, named.Chain, named.Purpose)
		if err != nil {
			return err
		}
		if own != named {
			return &MismatchError{c.base, a.ID, named.Chain, named.Purpose}
		}
	}
	return nil
}
