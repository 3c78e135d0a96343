package address

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func testKey() *secp256k1.PrivateKey {
	return secp256k1.PrivKeyFromBytes([]byte("a key of the tests, no more....."))
}

// What a wallet of ours signs, a replica takes; for another message, address,
// network or scheme it does not. The same text is signed the same way twice.
func TestSignAndVerify(t *testing.T) {
	key, message := testKey(), []byte(borrowText)
	pub := key.PubKey().SerializeCompressed()
	for _, network := range []string{Mainnet, Testnet, Regtest} {
		for name, addressOf := range map[string]func(string, []byte) (string, error){"P2WPKH": P2WPKH, "P2TR": P2TR} {
			addr, err := addressOf(network, pub)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := SignBIP322Simple(key, network, addr, message)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := SignBIP322Simple(key, network, addr, message); err != nil || again != sig {
				t.Errorf("%s %s: another signature the second time (%v)", network, name, err)
			}
			chain, err := BitcoinChain(network)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := ParseCAIP10(chain + ":" + addr)
			if err != nil {
				t.Fatal(err)
			}
			if !VerifySigner(SchemeBIP322, signer, message, sig, Extras{}) {
				t.Errorf("%s %s: own signature refused", network, name)
			}
			if VerifySigner(SchemeBIP322, signer, append(message, '\n'), sig, Extras{}) {
				t.Errorf("%s %s: another message taken", network, name)
			}
			if VerifySigner(SchemeEIP191, signer, message, sig, Extras{}) || VerifySigner(SchemeBIP137, signer, message, sig, Extras{}) {
				t.Errorf("%s %s: another scheme taken", network, name)
			}
			if _, err := SignBIP322Simple(secp256k1.PrivKeyFromBytes([]byte{1}), network, addr, message); err == nil {
				t.Errorf("%s %s: signed with another's key", network, name)
			}
		}
	}
	addr := EthereumAddress(ethereumOf(key.PubKey()))
	sig := SignEIP191(key, message)
	signer := CAIP10{NamespaceEthereum, "1337", addr}
	if !VerifySigner(SchemeEIP191, signer, message, sig, Extras{}) || SignEIP191(key, message) != sig {
		t.Error("EIP-191: own signature refused, or another the second time")
	}
	if VerifySigner(SchemeEIP191, signer, append(message, ' '), sig, Extras{}) {
		t.Error("EIP-191: another message taken")
	}
	if VerifySigner("", signer, message, sig, Extras{}) || Verify(SchemeEIP191, Mainnet, addr, message, sig, Extras{}) {
		t.Error("EIP-191: no scheme, or a Bitcoin network")
	}
}

// Every byte of a full signature counts, the outpoint's too, although the
// verdict is found with the outpoint of our own to_spend (trap 1).
func TestFullFormEveryByteCounts(t *testing.T) {
	i := slices.IndexFunc(vectors(t), func(v vector) bool {
		return v.Scheme == SchemeBIP322 && *v.Valid && strings.HasPrefix(v.Signature, prefixFull) && slices.Contains(v.Tags, "p2wpkh")
	})
	v := vectors(t)[i]
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(v.Signature, prefixFull))
	if err != nil {
		t.Fatal(err)
	}
	judge := func() bool {
		return Verify(v.Scheme, v.Network, v.Address, []byte(*v.Message), prefixFull+base64.StdEncoding.EncodeToString(raw), Extras{})
	}
	if !judge() {
		t.Fatal("the vector itself is refused")
	}
	for at := range raw {
		raw[at] ^= 1
		if judge() {
			t.Errorf("byte %d of %d does not matter", at, len(raw))
		}
		raw[at] ^= 1
	}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/wallet-signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	vs, err := readVectors(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

// Taproot has two more ways that the script engine takes: a genuine key-path
// signature with an annex, and a script that anybody can satisfy. Neither is
// the strict profile's.
func TestTaprootOtherWaysRefused(t *testing.T) {
	key, message := testKey(), []byte("annex")
	tweaked := txscript.TweakTaprootPrivKey(*key, nil)
	annexed := program{kindP2TR, schnorr.SerializePubKey(tweaked.PubKey())}
	tx := BIP322ToSign(annexed.script(), message)
	fetcher := txscript.NewCannedPrevOutputFetcher(annexed.script(), 0)
	annex := []byte{txscript.TaprootAnnexTag, 1}
	// BIP-341's message with an annex, which the library has no call for.
	hashes := txscript.NewTxSigHashes(tx, fetcher)
	msg := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // epoch, DEFAULT, version, nLockTime
	for _, h := range []chainhash.Hash{hashes.HashPrevOutsV1, hashes.HashInputAmountsV1,
		hashes.HashInputScriptsV1, hashes.HashSequenceV1, hashes.HashOutputsV1} {
		msg = append(msg, h[:]...)
	}
	msg = append(msg, 1, 0, 0, 0, 0) // key path with annex, input 0
	annexHash := sha256.Sum256(append([]byte{byte(len(annex))}, annex...))
	digest := chainhash.TaggedHash(chainhash.TagTapSighash, append(msg, annexHash[:]...))
	sig, err := schnorr.Sign(tweaked, digest[:])
	if err != nil {
		t.Fatal(err)
	}

	leaf := txscript.NewBaseTapLeaf([]byte{txscript.OP_DROP, txscript.OP_TRUE})
	tree := txscript.AssembleTaprootScriptTree(leaf)
	root := tree.RootNode.TapHash()
	anyone := program{kindP2TR, schnorr.SerializePubKey(txscript.ComputeTaprootOutputKey(key.PubKey(), root[:]))}
	block := tree.LeafMerkleProofs[0].ToControlBlock(key.PubKey())
	control, err := block.ToBytes()
	if err != nil {
		t.Fatal(err)
	}

	for name, x := range map[string]struct {
		p       program
		witness wire.TxWitness
	}{
		"annex":       {annexed, wire.TxWitness{sig.Serialize(), annex}},
		"script path": {anyone, wire.TxWitness{make([]byte, 64), leaf.Script, control}},
	} {
		tx := BIP322ToSign(x.p.script(), message)
		tx.TxIn[0].Witness = x.witness
		fetcher := txscript.NewCannedPrevOutputFetcher(x.p.script(), 0)
		engine, err := txscript.NewEngine(x.p.script(), tx, 0, txscript.StandardVerifyFlags, nil,
			txscript.NewTxSigHashes(tx, fetcher), 0, fetcher)
		if err != nil || engine.Execute() != nil {
			t.Errorf("%s: the engine refuses it, so this proves nothing", name)
		}
		raw := []byte{byte(len(x.witness))}
		for _, item := range x.witness {
			raw = append(append(raw, byte(len(item))), item...)
		}
		addr, err := AddressOf(Regtest, x.p.script())
		if err != nil {
			t.Fatal(err)
		}
		if Verify(SchemeBIP322, Regtest, addr, message, prefixSimple+base64.StdEncoding.EncodeToString(raw), Extras{}) {
			t.Errorf("%s: taken", name)
		}
	}
}

// A multisig of five is judged, one of six is refused, although the script
// engine would take up to twenty: each key is one more check to pay for.
func TestMultisigKeyCap(t *testing.T) {
	key, message := testKey(), []byte("m")
	for n := 1; n <= 7; n++ {
		script := []byte{txscript.OP_1}
		script = append(append(script, 33), key.PubKey().SerializeCompressed()...)
		for i := 1; i < n; i++ {
			other := secp256k1.PrivKeyFromBytes([]byte{byte(i)})
			script = append(append(script, 33), other.PubKey().SerializeCompressed()...)
		}
		script = append(script, byte(txscript.OP_1+n-1), txscript.OP_CHECKMULTISIG)
		hash := sha256.Sum256(script)
		addr, err := AddressOf(Regtest, program{kindP2WSH, hash[:]}.script())
		if err != nil {
			t.Fatal(err)
		}
		tx := BIP322ToSign(program{kindP2WSH, hash[:]}.script(), message)
		fetcher := txscript.NewCannedPrevOutputFetcher(program{kindP2WSH, hash[:]}.script(), 0)
		sig, err := txscript.RawTxInWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetcher), 0, 0, script, txscript.SigHashAll, key)
		if err != nil {
			t.Fatal(err)
		}
		w := wire.TxWitness{{}, sig, script}
		if !engineTakes(t, Regtest, addr, message, w) {
			t.Errorf("1 of %d: the engine refuses it, so this proves nothing", n)
		}
		got := Verify(SchemeBIP322, Regtest, addr, message, simple(w), Extras{})
		if got != (n <= maxMultisigKeys) {
			t.Errorf("1 of %d keys: %v", n, got)
		}
	}
}

func TestSchemeFits(t *testing.T) {
	for _, s := range schemes {
		for _, namespace := range []string{NamespaceBitcoin, NamespaceEthereum, NamespaceSolana, NamespaceICP, ""} {
			if SchemeFits(s.name, namespace) != (namespace == s.namespace) {
				t.Errorf("%s for %q", s.name, namespace)
			}
		}
	}
	if SchemeFits("pgp", NamespaceEthereum) || SchemeFits("BIP322", NamespaceBitcoin) {
		t.Error("a scheme that is not known fits")
	}
}

// A declared format is used as sent; without one the rule of requests §2
// decides. Only 0, 1 and 2 exist.
func TestDeclaredFormat(t *testing.T) {
	vs := vectors(t)
	i := slices.IndexFunc(vs, func(v vector) bool { return v.Scheme == SchemeSolanaLedger && *v.Message == "Hello World" })
	v := vs[i]
	for format, want := range []bool{true, false, false, false} { // signed as format 0
		f := uint8(format)
		if Verify(v.Scheme, v.Network, v.Address, []byte("Hello World"), v.Signature, Extras{Format: &f}) != want {
			t.Errorf("format %d: want %v", format, want)
		}
	}
}

// Nothing the outside sends makes the verifier panic, or answer twice
// differently, or allocate by a length it was told.
func FuzzVerify(f *testing.F) {
	for _, v := range vectors(f) {
		message, err := v.message()
		if err != nil {
			f.Fatal(err)
		}
		if len(message) <= MaxText {
			f.Add(v.Scheme, v.Network, v.Address, message, v.Signature, v.ApplicationDomain, unhex(f, v.PublicKeyDER), uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, scheme, network, address string, message []byte, signature, domain string, der []byte, format uint8) {
		x := Extras{ApplicationDomain: domain, PublicKeyDER: der}
		if format <= formatLong+1 {
			x.Format = &format
		}
		first := Verify(scheme, network, address, message, signature, x)
		if Verify(scheme, network, address, message, signature, x) != first {
			t.Fatal("two answers")
		}
	})
}

// FuzzBIP322 gets past the base64: raw bytes as simple and as full signature.
func FuzzBIP322(f *testing.F) {
	key := testKey()
	pub := key.PubKey().SerializeCompressed()
	var addrs []string
	for _, addressOf := range []func(string, []byte) (string, error){P2WPKH, P2TR} {
		addr, err := addressOf(Regtest, pub)
		if err != nil {
			f.Fatal(err)
		}
		sig, err := SignBIP322Simple(key, Regtest, addr, []byte("fuzz"))
		if err != nil {
			f.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sig, prefixSimple))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, uint8(len(addrs)))
		addrs = append(addrs, addr)
	}
	multisig := append(append([]byte{txscript.OP_1, 33}, pub...), txscript.OP_1, txscript.OP_CHECKMULTISIG)
	hash := sha256.Sum256(multisig)
	p2wsh, err := AddressOf(Regtest, program{kindP2WSH, hash[:]}.script())
	if err != nil {
		f.Fatal(err)
	}
	addrs = append(addrs, p2wsh, "2NEdockFqfjeHKwF8ECH5CeXSJarHcGnuX3", "n1AyRzMr1bxbncoNznUfvCZMhWn8x5oHLg")
	f.Fuzz(func(t *testing.T, raw []byte, which uint8) {
		addr := addrs[int(which)%len(addrs)]
		for _, prefix := range []string{"", prefixSimple, prefixFull} {
			sig := prefix + base64.StdEncoding.EncodeToString(raw)
			if Verify(SchemeBIP322, Regtest, addr, []byte("fuzz"), sig, Extras{}) !=
				Verify(SchemeBIP322, Regtest, addr, []byte("fuzz"), sig, Extras{}) {
				t.Fatal("two answers")
			}
			if prefix != prefixFull && Verify(SchemeBIP322, Regtest, addr, []byte("another"), sig, Extras{}) {
				t.Fatal("verifies for another message")
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	key, message := testKey(), []byte(borrowText)
	pub := key.PubKey().SerializeCompressed()
	for name, addressOf := range map[string]func(string, []byte) (string, error){"P2WPKH": P2WPKH, "P2TR": P2TR} {
		addr, err := addressOf(Regtest, pub)
		if err != nil {
			b.Fatal(err)
		}
		sig, err := SignBIP322Simple(key, Regtest, addr, message)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !Verify(SchemeBIP322, Regtest, addr, message, sig, Extras{}) {
					b.Fatal("refused")
				}
			}
		})
	}
	addr, sig := EthereumAddress(ethereumOf(key.PubKey())), SignEIP191(key, message)
	b.Run("EIP191", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !Verify(SchemeEIP191, NetworkEthereum, addr, message, sig, Extras{}) {
				b.Fatal("refused")
			}
		}
	})
}
