package client

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Wallet holds one Bitcoin and one Ethereum key and the pin of the cluster they
// are for. For test networks only: the keys lie unencrypted in a file.
type Wallet struct {
	bitcoin  *secp256k1.PrivateKey
	ethereum *secp256k1.PrivateKey
	pin      *Pin
}

// walletFile is a Wallet at rest. Version is of this format.
type walletFile struct {
	Version  int    `json:"version"`
	Warning  string `json:"warning"`
	Bitcoin  string `json:"bitcoinKey"`
	Ethereum string `json:"ethereumKey"`
	Pin      *Pin   `json:"pin"`
}

const walletWarning = "test network keys, unencrypted: never send coins of value here"

// NewWallet makes keys for the cluster of a pin. It refuses Bitcoin's and
// Ethereum's main networks.
func NewWallet(pin *Pin) (*Wallet, error) {
	if err := forTests(pin); err != nil {
		return nil, err
	}
	b, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make a Bitcoin key: %w", err)
	}
	e, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make an Ethereum key: %w", err)
	}
	return &Wallet{bitcoin: b, ethereum: e, pin: pin}, nil
}

func forTests(pin *Pin) error {
	if pin == nil {
		return errors.New("a wallet needs the pin of its cluster")
	}
	if network, err := bitcoinNetwork(pin.Chains[address.ChainBTC]); err != nil || network == address.Mainnet {
		return errors.New("wallet files are for test networks: this cluster is on Bitcoin's main network, or on none")
	}
	id, err := address.SplitCAIP10(pin.Chains[address.ChainETH] + ":0")
	if err != nil || id.Namespace != address.NamespaceEthereum || id.Reference == "1" {
		return errors.New("wallet files are for test networks: this cluster is on Ethereum's main network, or on none")
	}
	return nil
}

// Pin is what the wallet remembers of its cluster.
func (w *Wallet) Pin() *Pin { return w.pin }

// BitcoinKey and EthereumKey are for sending coins on a test network's chains.

func (w *Wallet) BitcoinKey() *secp256k1.PrivateKey  { return w.bitcoin }
func (w *Wallet) EthereumKey() *secp256k1.PrivateKey { return w.ethereum }

// String shows no key.
func (w *Wallet) String() string { return "wallet of " + w.SignerBTC().ID().String() }

// GoString shows no key either.
func (w *Wallet) GoString() string { return w.String() }

// Save writes a new file that only its owner may read. It never overwrites one:
// keys that are gone are coins that are gone.
func (w *Wallet) Save(file string) error {
	b, err := json.MarshalIndent(walletFile{
		Version: 1, Warning: walletWarning, Pin: w.pin,
		Bitcoin: hex.EncodeToString(w.bitcoin.Serialize()), Ethereum: hex.EncodeToString(w.ethereum.Serialize()),
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode wallet: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make folder of wallet: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("wallet %s exists: it holds keys and is never overwritten; choose another with --file", file)
	}
	if err != nil {
		return fmt.Errorf("write wallet: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write wallet %s: %w", file, err)
	}
	return nil
}

// LoadWallet reads what Save wrote.
func LoadWallet(file string) (*Wallet, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no wallet at %s: make one with coffer wallet new", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read wallet: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("wallet %s may be read by others: chmod 600 it", file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read wallet: %w", err)
	}
	var f walletFile
	if err := json.Unmarshal(b, &f); err != nil || f.Version != 1 {
		return nil, fmt.Errorf("wallet %s: not a wallet file of version 1", file) // the error would quote what it read
	}
	if err := forTests(f.Pin); err != nil {
		return nil, fmt.Errorf("wallet %s: %w", file, err)
	}
	w := &Wallet{pin: f.Pin}
	if w.bitcoin, err = parseKey(f.Bitcoin); err != nil {
		return nil, fmt.Errorf("wallet %s: Bitcoin key: %w", file, err)
	}
	if w.ethereum, err = parseKey(f.Ethereum); err != nil {
		return nil, fmt.Errorf("wallet %s: Ethereum key: %w", file, err)
	}
	return w, nil
}

var errKey = errors.New("not a private key")

func parseKey(s string) (*secp256k1.PrivateKey, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		return nil, errKey
	}
	var k secp256k1.ModNScalar
	if k.SetByteSlice(b) || k.IsZero() {
		return nil, errKey
	}
	return secp256k1.NewPrivateKey(&k), nil
}

// The wallet's signers, by how they sign: SignerBTC and SignerP2TR with BIP-322,
// SignerETH with EIP-191, SignerTyped, the same key, with EIP-712, which the
// cluster's parameters must allow.

func (w *Wallet) SignerBTC() Signer {
	return w.bitcoinSigner(address.P2WPKH)
}

func (w *Wallet) SignerP2TR() Signer {
	return w.bitcoinSigner(address.P2TR)
}

func (w *Wallet) bitcoinSigner(form func(network string, pub []byte) (string, error)) Signer {
	chain := w.pin.Chains[address.ChainBTC]
	network, err := bitcoinNetwork(chain)
	if err != nil {
		panic(err) // forTests saw it
	}
	a, err := form(network, w.bitcoin.PubKey().SerializeCompressed())
	if err != nil {
		panic(err) // the key is a key
	}
	return bitcoinSigner{w.bitcoin, network, mustID(chain, a)}
}

func (w *Wallet) SignerETH() Signer {
	a, err := address.EthereumOf(w.ethereum.PubKey().SerializeCompressed())
	if err != nil {
		panic(err) // the key is a key
	}
	return ethereumSigner{w.ethereum, mustID(w.pin.Chains[address.ChainETH], address.EthereumAddress(a))}
}

func (w *Wallet) SignerTyped() Signer {
	return typedSigner{w.SignerETH().(ethereumSigner)}
}

// Signer finds a signer by name: btc, p2tr, eth or eip712.
func (w *Wallet) Signer(name string) (Signer, error) {
	switch name {
	case "btc", "":
		return w.SignerBTC(), nil
	case "p2tr":
		return w.SignerP2TR(), nil
	case "eth":
		return w.SignerETH(), nil
	case "eip712":
		return w.SignerTyped(), nil
	}
	return nil, fmt.Errorf("no wallet %q: want btc, p2tr, eth or eip712", name)
}

type bitcoinSigner struct {
	key     *secp256k1.PrivateKey
	network string
	id      address.CAIP10
}

func (s bitcoinSigner) ID() address.CAIP10 { return s.id }
func (s bitcoinSigner) Scheme() string     { return address.SchemeBIP322 }
func (s bitcoinSigner) Sign(text string) (string, error) {
	return address.SignBIP322Simple(s.key, s.network, s.id.Address, []byte(text))
}
func (s bitcoinSigner) String() string   { return s.id.String() }
func (s bitcoinSigner) GoString() string { return s.id.String() }

type ethereumSigner struct {
	key *secp256k1.PrivateKey
	id  address.CAIP10
}

func (s ethereumSigner) ID() address.CAIP10 { return s.id }
func (s ethereumSigner) Scheme() string     { return address.SchemeEIP191 }
func (s ethereumSigner) Sign(text string) (string, error) {
	return address.SignEIP191(s.key, []byte(text)), nil
}
func (s ethereumSigner) String() string   { return s.id.String() }
func (s ethereumSigner) GoString() string { return s.id.String() }

type typedSigner struct{ ethereumSigner }

func (s typedSigner) Scheme() string { return address.SchemeEIP712 }
func (s typedSigner) Sign(message string) (string, error) {
	return address.SignEIP712(s.key, []byte(message)), nil
}

func mustID(chain, addr string) address.CAIP10 {
	id, err := address.SplitCAIP10(chain + ":" + addr)
	if err != nil {
		panic(err) // chain was checked when the wallet was made or loaded
	}
	return id
}

func bitcoinNetwork(caip2 string) (string, error) {
	ref, ok := strings.CutPrefix(caip2, address.NamespaceBitcoin+":")
	if !ok {
		return "", fmt.Errorf("%q is no Bitcoin network", caip2)
	}
	return address.BitcoinNetwork(ref)
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
