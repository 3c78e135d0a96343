package testnet

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/btcsuite/btcd/btcec/v2"
)

// faucetFile lies in the testnet's directory. Its keys own what the faucet gives away and lie outside every node.
const faucetFile = "faucet.json"

// faucetKeys are the testnet's own secrets: they guard play money on loopback, and only from other local users.
type faucetKeys struct {
	Bitcoin            hexBytes `json:"bitcoinKey"`
	Ethereum           hexBytes `json:"ethereumKey"`
	BitcoinRPCPassword hexBytes `json:"bitcoinRpcPassword"`
}

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (faucetKeys) String() string   { return "faucetKeys(hidden)" }
func (faucetKeys) GoString() string { return "faucetKeys(hidden)" }

// loadFaucetKeys reads the directory's keys, making them on first use.
func loadFaucetKeys(dir string) (faucetKeys, error) {
	path := filepath.Join(dir, faucetFile)
	var keys faucetKeys
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newFaucetKeys(path)
	}
	if err != nil {
		return keys, fmt.Errorf("read faucet keys: %w", err)
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		return keys, fmt.Errorf("read faucet keys %s: %w", path, err)
	}
	if len(keys.Bitcoin) != 32 || len(keys.Ethereum) != 32 || len(keys.BitcoinRPCPassword) == 0 {
		return keys, fmt.Errorf("read faucet keys %s: a key is missing or of the wrong length", path)
	}
	return keys, nil
}

func newFaucetKeys(path string) (keys faucetKeys, err error) {
	for _, k := range []*hexBytes{&keys.Bitcoin, &keys.Ethereum} {
		key, err := btcec.NewPrivateKey()
		if err != nil {
			return keys, fmt.Errorf("make a faucet key: %w", err)
		}
		*k = key.Serialize()
	}
	keys.BitcoinRPCPassword = randomSecret()
	text, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		return keys, fmt.Errorf("encode faucet keys: %w", err)
	}
	return keys, writeFile(path, append(text, '\n'))
}

// randomSecret is a fresh 128-bit secret. crypto/rand.Read never fails.
func randomSecret() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return b
}

// writeFile replaces a file whole, readable by the user alone: a crash leaves the old one or the new one.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
