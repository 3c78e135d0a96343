package address

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/base58"
	"github.com/btcsuite/btcd/btcutil/bech32"
)

// Addresses of every form we pay to, on each network, with their scripts
// (BIP-173, BIP-350 and the signature vectors).
var bitcoinAddresses = []struct{ network, addr, script string }{
	{Mainnet, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"},
	{Testnet, "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"},
	{Mainnet, "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"},
	{Mainnet, "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac"},
	{Mainnet, "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "a914b472a266d0bd89c13706a4132ccfb16f7c3b9fcb87"},
	{Regtest, "bcrt1q0mtevefynqsh8lz2pcuhuavmgty9rmqrnw000r", ""},
	{Regtest, "n1AyRzMr1bxbncoNznUfvCZMhWn8x5oHLg", ""},
	{Regtest, "2NEdockFqfjeHKwF8ECH5CeXSJarHcGnuX3", ""},
	{Regtest, "bcrt1pvutfwuy4kv3k8gp3ujd8drs0lelzmhz7sj0wk4qlaq8y0gnjtqhs5na3xw", ""},
}

func TestBitcoinAddresses(t *testing.T) {
	for _, x := range bitcoinAddresses {
		script, err := ScriptOf(x.network, x.addr)
		if err != nil || x.script != "" && hex.EncodeToString(script) != x.script {
			t.Errorf("%s: script %x (%v)", x.addr, script, err)
			continue
		}
		if back, err := AddressOf(x.network, script); err != nil || back != x.addr {
			t.Errorf("%s: back as %s (%v)", x.addr, back, err)
		}
		for _, other := range []string{Mainnet, Testnet, Regtest} {
			// base58 forms are the same on testnet and regtest.
			shared := x.network != Mainnet && other != Mainnet && !strings.Contains(x.addr, "1q") && !strings.Contains(x.addr, "1p")
			if _, err := ScriptOf(other, x.addr); other != x.network && !shared && !errors.Is(err, ErrAddress) {
				t.Errorf("%s taken on %s", x.addr, other)
			}
		}
	}
}

func witnessAddress(t *testing.T, encode func(string, []byte) (string, error), version byte, program []byte) string {
	t.Helper()
	five, err := bech32.ConvertBits(program, 8, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := encode("bc", append([]byte{version}, five...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBitcoinAddressRefused(t *testing.T) {
	h20, h32 := make([]byte, 20), make([]byte, 32)
	h20[0], h32[0] = 1, 1
	good := bitcoinAddresses[0].addr
	for name, addr := range map[string]string{
		"empty":              "",
		"upper case":         strings.ToUpper(good),
		"mixed case":         "bc1Q" + good[4:],
		"checksum":           good[:len(good)-1] + "5",
		"trailing space":     good + " ",
		"v0 with bech32m":    witnessAddress(t, bech32.EncodeM, 0, h20),
		"v1 with bech32":     witnessAddress(t, bech32.Encode, 1, h32),
		"v1 of 20 bytes":     witnessAddress(t, bech32.EncodeM, 1, h20),
		"v0 of 21 bytes":     witnessAddress(t, bech32.Encode, 0, append(h20, 0)),
		"v2":                 witnessAddress(t, bech32.EncodeM, 2, h32),
		"P2A":                "bc1pfeessrawgf",
		"public key":         "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
		"base58 version":     base58.CheckEncode(h20, 0x30),
		"base58 length":      base58.CheckEncode(h32, 0x00),
		"base58 leading one": "1" + "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
		"long":               strings.Repeat("1", 100_000),
		"not a base58 digit": "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN0",
		"separator only":     "bc1",
	} {
		if script, err := ScriptOf(Mainnet, addr); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %x, %v", name, script, err)
		}
	}
	for name, script := range map[string]string{
		"P2A": "51024e73", "v2": "5220" + strings.Repeat("01", 32), "OP_RETURN": "6a", "empty": "",
		"P2PK": "2102" + strings.Repeat("01", 32) + "ac",
	} {
		if a, err := AddressOf(Mainnet, unhex(t, script)); !errors.Is(err, ErrAddress) {
			t.Errorf("script %s: %s, %v", name, a, err)
		}
	}
	if _, err := ScriptOf("signet", good); !errors.Is(err, ErrChain) {
		t.Errorf("unknown network: %v", err)
	}
	if _, err := P2WPKH(Mainnet, h32); err == nil {
		t.Error("P2WPKH of no key")
	}
}

func TestEthereumAddresses(t *testing.T) {
	for _, s := range []string{ // EIP-55's own examples
		"0x52908400098527886E0F7030069857D2E4169EE7", "0xde709f2102306220921060314715629080e2fb77",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
		"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	} {
		a, err := ParseEthereum(s)
		if err != nil || EthereumAddress(a) != s {
			t.Errorf("%s: %s, %v", s, EthereumAddress(a), err)
		}
	}
	const good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	for name, s := range map[string]string{
		"lower": strings.ToLower(good), "upper": "0x" + strings.ToUpper(good[2:]), "0X": "0X" + good[2:],
		"no 0x": good[2:], "short": good[:41], "long": good + "0", "not hex": good[:41] + "g",
		"one letter": "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
	} {
		if _, err := ParseEthereum(s); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCAIP10(t *testing.T) {
	for _, s := range []string{
		"bip122:0f9188f13cb7b2c71f2a335e3a4fc328:bcrt1q0mtevefynqsh8lz2pcuhuavmgty9rmqrnw000r",
		"eip155:1337:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:GWLHBhSkCbvjj7fX6SGgpCk6MZPvrawNj3ZRzuonE98K",
		"icp:mainnet:dmbtv-5adx2-dl3vf-2vil6-2vefs-dtm4j-emd7b-hc7da-52ydy-qs6kw-yae",
	} {
		a, err := ParseCAIP10(s)
		if err != nil || a.String() != s || a.CheckPayout() != nil || a.Network() == "" {
			t.Errorf("%s: %s, %v, %v", s, a, err, a.CheckPayout())
		}
	}
	for _, s := range []string{
		"", "::", "eip155:1", "eip155:1:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed:", "EIP155:1:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		"eip155:1:0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "cosmos:hub-4:cosmos1xyz",
		"bip122:0f9188f13cb7b2c71f2a335e3a4fc328:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
		"bip122:00000000000000000000000000000000:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
		"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:1GWLHBhSkCbvjj7fX6SGgpCk6MZPvrawNj3ZRzuonE98K",
		"icp:mainnet:DMBTV-5adx2-dl3vf-2vil6-2vefs-dtm4j-emd7b-hc7da-52ydy-qs6kw-yae",
		"icp:mainnet:dmbtv5adx2-dl3vf-2vil6-2vefs-dtm4j-emd7b-hc7da-52ydy-qs6kw-yae",
		"icp:mainnet:aaaaa-ab",
	} {
		if a, err := ParseCAIP10(s); err == nil {
			t.Errorf("%q read as %s", s, a)
		}
	}
	multisig := CAIP10{NamespaceBitcoin, "000000000933ea01ad0ee984209779ba", bitcoinAddresses[1].addr}
	if !multisig.IsMultisig() || (CAIP10{NamespaceBitcoin, "000000000019d6689c085ae165831e93", bitcoinAddresses[0].addr}).IsMultisig() {
		t.Error("P2WSH alone is a multisig")
	}
}

// requests §4.3: "refuse zero, burn and precompile addresses".
func TestLostCoins(t *testing.T) {
	references := map[string]string{
		NamespaceBitcoin: "000000000019d6689c085ae165831e93", NamespaceEthereum: "1",
		NamespaceSolana: "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", NamespaceICP: "mainnet",
	}
	list := append([]string{
		"eip155:0x0000000000000000000000000000000000000000", "eip155:0x0000000000000000000000000000000000000001",
		"eip155:0x0000000000000000000000000000000000000100", "eip155:0x000000000000000000000000000000000000dEaD",
		"bip122:1111111111111111111114oLvT2", "bip122:bc1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq9e75rs",
		"bip122:bc1pam775nxmvam4pfpqlm5q06k0y84e3x9w0xuhdpmxuna2qj3dfg6qnzh0s2", // x of no point: BIP 340, vector 5
		"bip122:bc1pllllllllllllllllllllllllllllllllllllllllllllallllscqlhrddu", // x beyond the field: vector 14
	}, burnt[:]...)
	for _, s := range list {
		namespace, addr, _ := strings.Cut(s, ":")
		a := CAIP10{namespace, references[namespace], addr}
		if err := a.Check(); err != nil {
			t.Errorf("%s is no address, so this proves nothing: %v", s, err)
		}
		if a.CheckPayout() == nil {
			t.Errorf("%s: paid", s)
		}
	}
}

// Witness programs that no wallet can spend today, or anybody can, are paid by
// nobody: only version 0 of 20 and 32 bytes, and version 1 of 32 (BIP 141, 341).
func TestWitnessPrograms(t *testing.T) {
	for addr, paid := range map[string]bool{
		"bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0":             true, // BIP 350
		"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4":                                 true,
		"bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3":             true,
		"bc1qw508d6qejxtdg4y5r3zarvaryvjsqfh9":                                       false, // version 0 of 16 bytes
		"bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kj9wkru":                                 false, // version 1 of 20
		"bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y": false, // version 1 of 40
		"bc1pfeessrawgf": false, // version 1 of 2: anyone spends it
		"bc1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq2tdauy": false, // version 2
		"bc1sw50qgdz25j": false, // version 16
	} {
		err := CAIP10{NamespaceBitcoin, "000000000019d6689c085ae165831e93", addr}.CheckPayout()
		if (err == nil) != paid {
			t.Errorf("%s: %v, paid %v", addr, err, paid)
		}
	}
}

// Whatever decodes encodes to the same bytes.
func FuzzAddress(f *testing.F) {
	for _, x := range bitcoinAddresses {
		f.Add(NamespaceBitcoin, "0f9188f13cb7b2c71f2a335e3a4fc328", x.addr)
	}
	f.Add(NamespaceEthereum, "1", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
	f.Add(NamespaceICP, "mainnet", "aaaaa-aa")
	f.Add(NamespaceSolana, "x", "11111111111111111111111111111111")
	f.Fuzz(func(t *testing.T, namespace, reference, addr string) {
		s := CAIP10{namespace, reference, addr}.String()
		a, err := ParseCAIP10(s)
		if err == nil && a.String() != s {
			t.Fatalf("%q came back as %q", s, a)
		}
		_ = a.CheckPayout()
	})
}

// Whatever reads as an address is its one canonical spelling, and nothing that
// is none panics.
func FuzzParseCAIP10(f *testing.F) {
	for _, x := range bitcoinAddresses {
		chain, err := BitcoinChain(x.network)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(chain + ":" + x.addr)
	}
	for _, s := range []string{
		"eip155:1:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:GWLHBhSkCbvjj7fX6SGgpCk6MZPvrawNj3ZRzuonE98K",
		"icp:mainnet:dmbtv-5adx2-dl3vf-2vil6-2vefs-dtm4j-emd7b-hc7da-52ydy-qs6kw-yae", "icp:mainnet:2vxsx-fae", "bip122:000000000019d6689c085ae165831e93:bc1pfeessrawgf",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseCAIP10(s)
		if err != nil {
			return
		}
		if a.String() != s || a.Network() == "" {
			t.Fatalf("%q is read as %q", s, a)
		}
		if again, err := ParseCAIP10(s); err != nil || again != a {
			t.Fatalf("%q: another answer the second time", s)
		}
		_, _ = a.CheckPayout(), a.IsMultisig()
		if a.Namespace == NamespaceBitcoin {
			script, err := ScriptOf(a.Network(), a.Address)
			if back, errBack := AddressOf(a.Network(), script); err != nil || errBack != nil || back != a.Address {
				t.Fatalf("%q comes back as %q", s, back)
			}
		}
	})
}
