package address

import (
	"fmt"
	"strings"
)

// CAIP-2 namespaces of the chains whose addresses we read.
const (
	NamespaceBitcoin  = "bip122"
	NamespaceEthereum = "eip155"
	NamespaceSolana   = "solana"
	NamespaceICP      = "icp"
)

// CAIP10 is an address together with its chain: namespace:reference:address.
type CAIP10 struct {
	Namespace string
	Reference string
	Address   string
}

func (a CAIP10) String() string { return a.Chain() + ":" + a.Address }

// Chain is the CAIP-2 id of a's chain.
func (a CAIP10) Chain() string { return a.Namespace + ":" + a.Reference }

// SplitCAIP10 takes a well-formed CAIP-10 id apart. It says nothing about the
// chain being known or the address being one: that is Check.
func SplitCAIP10(s string) (CAIP10, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 ||
		!spelled(parts[0], 3, 8, "-") || strings.ToLower(parts[0]) != parts[0] ||
		!spelled(parts[1], 1, 32, "-_") ||
		!spelled(parts[2], 1, 128, "-.%") {
		return CAIP10{}, fmt.Errorf("not a CAIP-10 id: %.60q", s)
	}
	return CAIP10{parts[0], parts[1], parts[2]}, nil
}

// ParseCAIP10 reads an address of a known chain in its one canonical form.
func ParseCAIP10(s string) (CAIP10, error) {
	a, err := SplitCAIP10(s)
	if err != nil {
		return CAIP10{}, err
	}
	return a, a.Check()
}

// Check says whether a is the canonical spelling of an address on a known chain.
func (a CAIP10) Check() error {
	switch a.Namespace {
	case NamespaceBitcoin:
		network, err := BitcoinNetwork(a.Reference)
		if err != nil {
			return err
		}
		_, err = ScriptOf(network, a.Address)
		return err
	case NamespaceEthereum:
		_, err := ParseEthereum(a.Address)
		return err
	case NamespaceSolana:
		_, err := ParseSolana(a.Address)
		return err
	case NamespaceICP:
		_, err := ParsePrincipal(a.Address)
		return err
	}
	return fmt.Errorf("%w: %s", ErrChain, a.Chain())
}

// Network is the name Verify knows a's network by, "" for an unknown chain.
func (a CAIP10) Network() string {
	switch a.Namespace {
	case NamespaceBitcoin:
		network, err := BitcoinNetwork(a.Reference)
		if err != nil {
			return ""
		}
		return network
	case NamespaceEthereum:
		return NetworkEthereum
	case NamespaceSolana:
		return NetworkSolana
	case NamespaceICP:
		return NetworkIC
	}
	return ""
}

// IsMultisig reports whether a is of the one form that several people sign for,
// P2WSH; its requests may run for longer (spec: requests §4.1).
func (a CAIP10) IsMultisig() bool {
	if a.Namespace != NamespaceBitcoin {
		return false
	}
	script, err := ScriptOf(a.Network(), a.Address)
	if err != nil {
		return false
	}
	p, ok := programOf(script)
	return ok && p.kind == kindP2WSH
}

// spelled reports whether s is least to most letters, digits or others.
func spelled(s string, least, most int, others string) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

// burnt lists addresses that nobody pays to on purpose (spec: requests §4.3).
// Ethereum's zero, precompiles and 0x…dead are a range, in CheckPayout.
var burnt = [...]string{
	"eip155:0xdEAD000000000000000042069420694206942069",
	"eip155:0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE", // "native coin" placeholder
	"eip155:0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF",
	"bip122:1BitcoinEaterAddressDontSendf59kuE",
	"solana:11111111111111111111111111111111",
	"solana:1nc1nerator11111111111111111111111111111111",
	"icp:aaaaa-aa",  // the management canister
	"icp:2vxsx-fae", // anonymous
}

// CheckPayout says whether coins may be sent to a: a canonical address of a
// known chain, and none where coins are lost. Addresses of our own are the
// ledger's to refuse (spec: requests §4.3).
func (a CAIP10) CheckPayout() error {
	if err := a.Check(); err != nil {
		return err
	}
	lost := false
	for _, b := range burnt {
		lost = lost || b == a.Namespace+":"+a.Address
	}
	switch a.Namespace {
	case NamespaceEthereum:
		e, err := ParseEthereum(a.Address)
		// Zero, precompiles with much room for new ones, and 0x…dead.
		lost = lost || err != nil || allZero(e[:18])
	case NamespaceBitcoin:
		script, err := ScriptOf(a.Network(), a.Address)
		p, ok := programOf(script)
		lost = lost || err != nil || !ok || allZero(p.hash) || p.unspendable()
	}
	if lost {
		return fmt.Errorf("%w: coins sent to %s are lost", ErrAddress, a)
	}
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
