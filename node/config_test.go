package node

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss/keystore"
)

const testPassphrase = "correct horse battery staple"

func testConfig(dir string) Config {
	return Config{
		Dir: dir, Listen: "/ip4/127.0.0.1/tcp/0", API: "127.0.0.1:0",
		Chains:   []ChainConfig{{Name: ledger.Bitcoin, URL: "http://127.0.0.1:1", User: "u", Password: "p"}, {Name: ledger.Ethereum, URL: "http://127.0.0.1:1"}},
		Prices:   []string{"http://127.0.0.1:1/a/{asset}", "http://127.0.0.1:1/b/{asset}", "http://127.0.0.1:1/c/{asset}"},
		FeeEvery: Duration(5 * time.Second),
	}
}

// What is saved is read back, by its owner alone; a key that nobody knows is an
// error that names it.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadConfig(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	c := testConfig(dir)
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "node.toml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: it may hold a password", info.Mode(), err)
	}
	got, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Dir != dir || got.API != c.API || got.FeeEvery != c.FeeEvery || len(got.Chains) != 2 || got.Chains[0] != c.Chains[0] || len(got.Prices) != 3 {
		t.Errorf("read back %+v", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "node.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, names string }{
		"an unknown key":            {"colour = \"red\"\n" + string(text), "colour"},
		"an unknown key of a chain": {string(text) + "\n[[chain]]\nname = \"btc\"\nurls = \"x\"\n", "urls"},
		"the data directory":        {"Dir = \"/tmp\"\n" + string(text), "Dir"},
		"a misspelt key":            {strings.Replace(string(text), "fee_every", "fee_evry", 1), "fee_evry"},
		"no duration":               {strings.Replace(string(text), "5s", "often", 1), "often"},
		"a negative duration":       {strings.Replace(string(text), "5s", "-5s", 1), "negative"},
		"another type":              {strings.Replace(string(text), "api = ", "api = 7 # ", 1), "API"},
		"no TOML":                   {"{}", ""},
		"a doubled key":             {string(text) + "\napi = \"127.0.0.1:1\"\n", ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, "node.toml"), []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), tc.names) || !strings.Contains(err.Error(), "node.toml") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	g, _ := testGenesis(testStart)
	if err := testConfig("").Validate(g); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"a chain without endpoint":     func(c *Config) { c.Chains = c.Chains[:1] },
		"an endpoint that is none":     func(c *Config) { c.Chains[0].URL = "localhost" },
		"no endpoint":                  func(c *Config) { c.Chains[0].URL = "" },
		"two venues":                   func(c *Config) { c.Prices = c.Prices[:2] },
		"a venue named twice":          func(c *Config) { c.Venues = []string{"kraken", "kraken"} },
		"a price server named twice":   func(c *Config) { c.Prices = append(c.Prices, c.Prices[0]) },
		"an unknown venue":             func(c *Config) { c.Venues = []string{"mtgox"} },
		"a price server in the clear":  func(c *Config) { c.Prices = append(c.Prices, "http://example.org/{asset}") },
		"a price server by name":       func(c *Config) { c.Prices = append(c.Prices, "http://localhost/{asset}") },
		"no API listener":              func(c *Config) { c.API = "" },
		"an API listener without port": func(c *Config) { c.API = "127.0.0.1" },
		"operators from anywhere":      func(c *Config) { c.Operator = "0.0.0.0:9000" },
		"operators by name":            func(c *Config) { c.Operator = "localhost:9000" },
		"operators without port":       func(c *Config) { c.Operator = "127.0.0.1" },
	} {
		c := testConfig("")
		if spoil(&c); c.Validate(g) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c := testConfig("")
	c.Prices, c.Venues = nil, []string{"coinbase", "kraken", "bitstamp"}
	if err := c.Validate(g); err != nil {
		t.Errorf("three public venues: %v", err)
	}
	usdc := g
	usdc.Assets = append(slices.Clone(g.Assets), ledger.AssetParam{ID: "usdc.eth", Symbol: "USDC"})
	if err := c.Validate(usdc); err == nil || !strings.Contains(err.Error(), "usdc.eth") {
		t.Errorf("an asset that two of three venues list: %v", err)
	}
	c = testConfig("")
	c.Operator = "127.0.0.1:9000"
	if err := c.Validate(g); err != nil {
		t.Errorf("operators on loopback: %v", err)
	}
}

// disk is the directory of a node whose keystore is cheap to open. It mirrors
// what Init writes.
func disk(t *testing.T, key ed25519.PrivateKey, passphrase string) string {
	t.Helper()
	dir := t.TempDir()
	ks, err := keystore.Init(filepath.Join(dir, "keystore"), []byte(passphrase), keystore.Options{Node: idOf(key), TestWorkFactor: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := ks.Put(identityName, key.Seed()); err != nil {
		t.Fatal(err)
	}
	if err := ks.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(idOf(key).String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A node that cannot open what it must not lose says why, and leaves nothing
// behind: no port, no half-open store.
func TestOpenRefusals(t *testing.T) {
	g, keys := testGenesis(testStart)
	quiet := slog.New(slog.DiscardHandler)
	write := func(t *testing.T, path string, change func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		spoil      func(t *testing.T, dir string, c *Config)
		passphrase string
		is         error
		says       string
	}{
		"a wrong passphrase": {passphrase: "wrong", is: keystore.ErrPassphrase},
		"no passphrase":      {passphrase: "none", is: keystore.ErrPassphrase},
		"a key file cut short": {spoil: func(t *testing.T, dir string, _ *Config) {
			write(t, filepath.Join(dir, "keystore", "keystore.key"), func(b []byte) []byte { return b[:len(b)/2] })
		}, is: keystore.ErrCorrupt},
		"a key file of noise": {spoil: func(t *testing.T, dir string, _ *Config) {
			write(t, filepath.Join(dir, "keystore", "keystore.key"), func(b []byte) []byte { return []byte("noise") })
		}, is: keystore.ErrCorrupt},
		"a flipped bit in the wrapped key": {spoil: func(t *testing.T, dir string, _ *Config) {
			write(t, filepath.Join(dir, "keystore", "keystore.key"), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, is: keystore.ErrPassphrase},
		"records that rotted": {spoil: func(t *testing.T, dir string, _ *Config) {
			rotted := 0
			for _, pattern := range []string{"*.mem", "*.sst", "*.vlog"} {
				files, _ := filepath.Glob(filepath.Join(dir, "keystore", "db", pattern))
				for _, f := range files {
					write(t, f, func(b []byte) []byte {
						// The record is sealed: any change within its body shows.
						if i := strings.Index(string(b), identityName); i >= 0 {
							b[i+len(identityName)+40] ^= 1
							rotted++
						}
						return b
					})
				}
			}
			if rotted == 0 {
				t.Fatal("the record was not found: the test proves nothing")
			}
		}, says: "identity"},
		"permissions too wide": {spoil: func(t *testing.T, dir string, _ *Config) {
			if err := os.Chmod(filepath.Join(dir, "keystore"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, is: keystore.ErrMode},
		"no identity": {spoil: func(t *testing.T, dir string, _ *Config) {
			if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
				t.Fatal(err)
			}
		}, is: os.ErrNotExist, says: "coffer node init"},
		"an identity that is none": {spoil: func(t *testing.T, dir string, _ *Config) {
			write(t, filepath.Join(dir, identityFile), func([]byte) []byte { return []byte("hello") })
		}, says: "not a member id"},
		"another node's identity file": {spoil: func(t *testing.T, dir string, _ *Config) {
			write(t, filepath.Join(dir, identityFile), func([]byte) []byte { return []byte(idOf(keys[1]).String()) })
		}, is: keystore.ErrPassphrase}, // the file key is bound to the node
		"an endpoint missing": {spoil: func(_ *testing.T, _ string, c *Config) { c.Chains = nil }, says: "no endpoint for chain"},
		"a chain nobody knows": {spoil: func(_ *testing.T, _ string, c *Config) {
			c.Chains = append(c.Chains, ChainConfig{Name: "doge", URL: "http://127.0.0.1:1"})
		}, says: `"doge"`},
		"a peer address that is none": {spoil: func(_ *testing.T, _ string, c *Config) { c.Listen = "here" }, says: "listen"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := disk(t, keys[0], testPassphrase)
			c := testConfig(dir)
			if tc.spoil != nil {
				tc.spoil(t, dir, &c)
			}
			pass := testPassphrase
			switch tc.passphrase {
			case "none":
				pass = ""
			case "wrong":
				pass = "not the one it was made with"
			}
			n, err := Open(c, g, []byte(pass), quiet)
			if err == nil {
				n.Close()
				t.Fatal("opened")
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%v, want %v", err, tc.is)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want it to say %q", err, tc.says)
			}
			if strings.Contains(err.Error(), hex.EncodeToString(keys[0].Seed())) || pass != "" && strings.Contains(err.Error(), pass) {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
	t.Run("no seat in the genesis", func(t *testing.T) {
		key := ed25519.NewKeyFromSeed(seedOf("stranger", 0))
		dir := disk(t, key, testPassphrase)
		if n, err := Open(testConfig(dir), g, []byte(testPassphrase), quiet); err == nil || !strings.Contains(err.Error(), "no seat") {
			if n != nil {
				n.Close()
			}
			t.Errorf("a stranger: %v", err)
		}
	})
	t.Run("a port in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := testConfig(disk(t, keys[0], testPassphrase))
		c.API = l.Addr().String()
		if _, err := Open(c, g, []byte(testPassphrase), quiet); err == nil || !strings.Contains(err.Error(), c.API) || !strings.Contains(err.Error(), "choose another") {
			t.Errorf("a port in use: %v", err)
		}
	})
}

// An identity is made once: a second Init would lose KeyShares and promises.
func TestInitRefusesASecondTime(t *testing.T) {
	dir := disk(t, ed25519.NewKeyFromSeed(seedOf("member", 0)), testPassphrase)
	if _, err := Init(dir, []byte("again")); err == nil {
		t.Error("made a second identity")
	}
}

func TestGenesisFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadGenesis(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	g, _ := testGenesis(testStart)
	if err := SaveGenesis(dir, g); err != nil {
		t.Fatal(err)
	}
	got, err := LoadGenesis(dir)
	if err != nil || got.Hash() != g.Hash() {
		t.Fatalf("read back %v", err)
	}
	file := filepath.Join(dir, genesisFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := g
	bad.Epoch.M = 1
	for name, b := range map[string][]byte{
		"nothing": nil, "noise": []byte("noise"), "a trailing byte": append(good[:len(good):len(good)], 0), "cut short": good[:len(good)-1],
		"valid bytes of an invalid genesis": ledger.Marshal(bad),
	} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadGenesis(dir); err == nil || !strings.Contains(err.Error(), "genesis") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := SaveGenesis(dir, bad); err == nil {
		t.Error("saved an invalid genesis")
	}
}
