package node

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss/keystore"
)

// A node's directory holds, beside node.toml and genesis.cbor:
//
//	identity.pub  the member id in hex, which every keystore record is bound to
//	keystore/     the identity key, KeyShares, promises, joined sessions; encrypted
//	raft/         the log, the heads, the snapshots
const (
	identityFile = "identity.pub"
	identityName = "identity"
	genesisFile  = "genesis.cbor"
)

// Init makes the identity and the keystore of a new node in dir and returns its
// member id. It refuses a directory that has one.
func Init(dir string, passphrase []byte) (ledger.MemberID, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ledger.MemberID{}, err
	}
	if _, err := os.Stat(filepath.Join(dir, identityFile)); !errors.Is(err, os.ErrNotExist) {
		return ledger.MemberID{}, fmt.Errorf("%s holds a node already", dir)
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return ledger.MemberID{}, err
	}
	id := ledger.MemberID(pub)
	ks, err := keystore.Init(filepath.Join(dir, "keystore"), passphrase, keystore.Options{Node: id})
	if err != nil {
		return id, err
	}
	defer ks.Close()
	if err := ks.Put(identityName, key.Seed()); err != nil {
		return id, fmt.Errorf("store identity: %w", err)
	}
	return id, os.WriteFile(filepath.Join(dir, identityFile), []byte(id.String()+"\n"), 0o600)
}

func openKeystore(dir string, passphrase []byte, log *slog.Logger) (*keystore.Keystore, ed25519.PrivateKey, error) {
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		return nil, nil, fmt.Errorf("no node in %s, make one with `coffer node init`: %w", dir, err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, nil, fmt.Errorf("%s is not a member id", filepath.Join(dir, identityFile))
	}
	ks, err := keystore.Open(filepath.Join(dir, "keystore"), passphrase, keystore.Options{Node: [32]byte(b), Log: log})
	if err != nil {
		return nil, nil, err
	}
	debug.FreeOSMemory() // unwrapping took 256 MiB, once
	seed, err := ks.Get(identityName)
	if err != nil || len(seed) != ed25519.SeedSize {
		ks.Close()
		return nil, nil, fmt.Errorf("read identity: %w", errors.Join(err, errors.New("not in the keystore")))
	}
	key := ed25519.NewKeyFromSeed(seed)
	clear(seed)
	if !key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(b)) {
		ks.Close()
		return nil, nil, fmt.Errorf("identity key is not that of %s", identityFile)
	}
	return ks, key, nil
}

// LoadGenesis reads dir's genesis.
func LoadGenesis(dir string) (ledger.Genesis, error) {
	b, err := os.ReadFile(filepath.Join(dir, genesisFile))
	if err != nil {
		return ledger.Genesis{}, fmt.Errorf("read genesis: %w", err)
	}
	var g ledger.Genesis
	if err := ledger.Unmarshal(b, &g); err != nil {
		return g, fmt.Errorf("read %s: %w", genesisFile, err)
	}
	if err := g.Validate(); err != nil {
		return g, fmt.Errorf("genesis: %w", err)
	}
	return g, nil
}

// SaveGenesis writes dir's genesis.
func SaveGenesis(dir string, g ledger.Genesis) error {
	if err := g.Validate(); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, genesisFile), ledger.Marshal(g), 0o600)
}
