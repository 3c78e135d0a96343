package address

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/base58"
	"github.com/btcsuite/btcd/btcutil/bech32"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// The eleven traps of spec requests §3.1, one test each: the vectors that are
// about it, and cases of our own for which a plain combination of libraries
// says yes.

// judged runs the vectors that pick chooses and demands at least so many.
func judged(t *testing.T, least int, pick func(vector) bool) {
	t.Helper()
	n := 0
	for _, v := range vectors(t) {
		if !pick(v) {
			continue
		}
		n++
		if got, err := v.judge(); err != nil || got != *v.Valid {
			t.Errorf("%s: %v, want %v: %s (%v)", v.ID, got, *v.Valid, v.Why, err)
		}
	}
	if n < least {
		t.Errorf("%d vectors for this trap, want %d", n, least)
	}
}

func tagged(scheme string, tags ...string) func(vector) bool {
	return func(v vector) bool {
		return (scheme == "" || v.Scheme == scheme) && slices.ContainsFunc(tags, func(s string) bool { return slices.Contains(v.Tags, s) })
	}
}

// bitcoinSigned is a P2WPKH address of the test key and its simple signature.
func bitcoinSigned(t *testing.T, network string, message []byte) (addr, sig string) {
	t.Helper()
	addr, err := P2WPKH(network, testKey().PubKey().SerializeCompressed())
	if err != nil {
		t.Fatal(err)
	}
	if sig, err = SignBIP322Simple(testKey(), network, addr, message); err != nil {
		t.Fatal(err)
	}
	if !Verify(SchemeBIP322, network, addr, message, sig, Extras{}) {
		t.Fatal("the signature itself is refused")
	}
	return addr, sig
}

func stackOf(t *testing.T, sig string) wire.TxWitness {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sig, prefixSimple))
	if err != nil {
		t.Fatal(err)
	}
	c := cursor{raw}
	w, ok := c.witness()
	if !ok {
		t.Fatal("no witness")
	}
	return w
}

func simple(w wire.TxWitness) string {
	raw := []byte{byte(len(w))}
	for _, item := range w {
		raw = append(append(raw, byte(len(item))), item...)
	}
	return prefixSimple + base64.StdEncoding.EncodeToString(raw)
}

// engineTakes says what the script engine alone would.
func engineTakes(t *testing.T, network, addr string, message []byte, w wire.TxWitness) bool {
	t.Helper()
	script, err := ScriptOf(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	tx := BIP322ToSign(script, message)
	tx.TxIn[0].Witness = w
	fetcher := txscript.NewCannedPrevOutputFetcher(script, 0)
	e, err := txscript.NewEngine(script, tx, 0, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetcher), 0, fetcher)
	return err == nil && e.Execute() == nil
}

// 1: a full proof of another message is consistent in itself.
func TestTrap1OtherPrevout(t *testing.T) {
	judged(t, 10, tagged(SchemeBIP322, "full"))
	said, shown := []byte("I give one coin"), []byte("I give all coins")
	addr, sig := bitcoinSigned(t, Regtest, said)
	script, err := ScriptOf(Regtest, addr)
	if err != nil {
		t.Fatal(err)
	}
	tx := BIP322ToSign(script, said)
	tx.TxIn[0].Witness = stackOf(t, sig)
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	full := prefixFull + base64.StdEncoding.EncodeToString(raw.Bytes())
	if !Verify(SchemeBIP322, Regtest, addr, said, full, Extras{}) {
		t.Error("a full proof is refused")
	}
	if Verify(SchemeBIP322, Regtest, addr, shown, full, Extras{}) {
		t.Error("a full proof of another message is taken")
	}
}

// 2: a pay-to-anchor output is anyone's.
func TestTrap2PayToAnchor(t *testing.T) {
	judged(t, 3, tagged(SchemeBIP322, "anyone"))
	for _, addr := range []string{"bc1pfeessrawgf", "BC1PFEESSRAWGF"} {
		for _, sig := range []string{"", "AA==", prefixSimple + "AA==", prefixSimple + "AQA="} {
			if Verify(SchemeBIP322, Mainnet, addr, []byte("m"), sig, Extras{}) {
				t.Errorf("%s with %q: taken", addr, sig)
			}
		}
	}
	// As a transaction it needs no witness at all: the engine says yes.
	script := []byte{txscript.OP_1, 2, 0x4e, 0x73}
	tx := BIP322ToSign(script, []byte("m"))
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	if Verify(SchemeBIP322, Mainnet, "bc1pfeessrawgf", []byte("m"), prefixFull+base64.StdEncoding.EncodeToString(raw.Bytes()), Extras{}) {
		t.Error("full form: taken")
	}
	if err := (CAIP10{NamespaceBitcoin, bitcoinNetworks[0].reference, "bc1pfeessrawgf"}).CheckPayout(); err == nil {
		t.Error("coins may be paid to it")
	}
}

// 3: an address is of exactly the named network, and of a form we know.
func TestTrap3OtherNetworkOrForm(t *testing.T) {
	judged(t, 6, tagged("", "network"))
	message := []byte("m")
	pub := testKey().PubKey().SerializeCompressed()
	addr, sig := bitcoinSigned(t, Mainnet, message)
	hash, err := bitcoinNetworks[0].decode(addr)
	if err != nil {
		t.Fatal(err)
	}
	five, err := bech32.ConvertBits(hash.hash, 8, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	v1, err := bech32.EncodeM("bc", append([]byte{1}, five...))
	if err != nil {
		t.Fatal(err)
	}
	regtest, _ := bitcoinSigned(t, Regtest, message)
	for name, x := range map[string]string{
		"version 1 with 20 bytes": v1, "public key": hex.EncodeToString(pub), "regtest": regtest,
		"mixed case": "bc1Q" + addr[4:], "space": addr + " ", "empty": "",
	} {
		for _, scheme := range []string{SchemeBIP322, SchemeBIP137} {
			if Verify(scheme, Mainnet, x, message, sig, Extras{}) {
				t.Errorf("%s: taken", name)
			}
		}
	}
	for _, network := range []string{Testnet, Regtest, "", "signet", "bitcoin", NetworkEthereum} {
		if Verify(SchemeBIP322, network, addr, message, sig, Extras{}) {
			t.Errorf("a mainnet address on %q: taken", network)
		}
	}
}

// 4: the engine takes every hash type that was signed for.
func TestTrap4OtherHashType(t *testing.T) {
	judged(t, 6, tagged(SchemeBIP322, "sighash"))
	key, message := testKey(), []byte("m")
	addr, sig := bitcoinSigned(t, Regtest, message)
	script, err := ScriptOf(Regtest, addr)
	if err != nil {
		t.Fatal(err)
	}
	tx := BIP322ToSign(script, message)
	fetcher := txscript.NewCannedPrevOutputFetcher(script, 0)
	for _, kind := range []txscript.SigHashType{
		txscript.SigHashNone, txscript.SigHashSingle, txscript.SigHashAll | txscript.SigHashAnyOneCanPay,
		txscript.SigHashNone | txscript.SigHashAnyOneCanPay, txscript.SigHashSingle | txscript.SigHashAnyOneCanPay,
	} {
		digest, err := txscript.CalcWitnessSigHash(script, txscript.NewTxSigHashes(tx, fetcher), kind, tx, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := wire.TxWitness{append(ecdsa.Sign(key, digest).Serialize(), byte(kind)), stackOf(t, sig)[1]}
		if !engineTakes(t, Regtest, addr, message, w) {
			t.Errorf("hash type %x: the engine refuses it, so this proves nothing", kind)
		}
		if Verify(SchemeBIP322, Regtest, addr, message, simple(w), Extras{}) {
			t.Errorf("hash type %x: taken", kind)
		}
	}
}

// 5: Go's base64 reads one signature from many spellings.
func TestTrap5Base64Spellings(t *testing.T) {
	judged(t, 5, tagged(SchemeBIP322, "encoding"))
	message := []byte("m")
	addr, sig := bitcoinSigned(t, Regtest, message)
	compact := ecdsa.SignCompact(testKey(), hashOf(BIP137Digest(message)), true)
	compact[0] += 8 // P2WPKH
	bip137 := base64.StdEncoding.EncodeToString(compact)
	if !Verify(SchemeBIP137, Regtest, addr, message, bip137, Extras{}) {
		t.Fatal("the BIP-137 signature itself is refused")
	}
	for scheme, sig := range map[string]string{SchemeBIP322: sig, SchemeBIP137: bip137} {
		for _, s := range []string{"\n", "\r", "\r\n", " ", "\t", "=", "\x00"} {
			for at := range len(sig) + 1 {
				// Four of them keep the length mod 4 that tells the prefix.
				for _, n := range []int{1, 4} {
					if Verify(scheme, Regtest, addr, message, sig[:at]+strings.Repeat(s, n)+sig[at:], Extras{}) {
						t.Fatalf("%s: %d times %q at %d: taken", scheme, n, s, at)
					}
				}
			}
		}
		if Verify(scheme, Regtest, addr, message, strings.TrimRight(sig, "="), Extras{}) != !strings.HasSuffix(sig, "=") {
			t.Errorf("%s: unpadded: taken", scheme)
		}
		// The bits that padding leaves unused are zero.
		if i := strings.IndexByte(sig, '='); i > 0 && Verify(scheme, Regtest, addr, message, sig[:i-1]+next(sig[i-1])+sig[i:], Extras{}) {
			t.Errorf("%s: other unused bits: taken", scheme)
		}
	}
}

// next is the letter after c in base64.
func next(c byte) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return letters[strings.IndexByte(letters, c)+1:][:1]
}

func hashOf(h [32]byte) []byte { return h[:] }

// 6: some DER readers skip what follows the signature.
func TestTrap6BytesAfterDER(t *testing.T) {
	judged(t, 3, tagged(SchemeBIP322, "der"))
	message := []byte("m")
	addr, sig := bitcoinSigned(t, Regtest, message)
	w := stackOf(t, sig)
	der, kind := w[0][:len(w[0])-1], w[0][len(w[0])-1]
	for name, x := range map[string][]byte{
		"a byte more":     append(bytes.Clone(der), 0, kind),
		"two hash types":  append(bytes.Clone(der), kind, kind),
		"length too long": append([]byte{der[0], der[1] + 1}, append(bytes.Clone(der[2:]), 0, kind)...),
		"cut short":       append(bytes.Clone(der[:len(der)-1]), kind),
	} {
		if Verify(SchemeBIP322, Regtest, addr, message, simple(wire.TxWitness{x, w[1]}), Extras{}) {
			t.Errorf("%s: taken", name)
		}
	}
}

// highS is the other signature of the same key over the same digest, r‖(n−s).
func highS(rs []byte) []byte {
	var s secp256k1.ModNScalar
	s.SetByteSlice(rs[32:])
	s.Negate()
	b := s.Bytes()
	return append(bytes.Clone(rs[:32]), b[:]...)
}

// 7: n−s verifies as well as s, in every ECDSA scheme.
func TestTrap7HighS(t *testing.T) {
	judged(t, 4, tagged("", "high-s"))
	n := 0
	for _, v := range vectors(t) {
		if !*v.Valid {
			continue
		}
		twin := v
		switch v.Scheme {
		case SchemeEIP191, SchemeEIP712:
			sig := unhex(t, v.Signature[2:])
			other := sig[64] ^ 1 // 0 and 1
			if sig[64] >= 27 {
				other = 27 + 28 - sig[64]
			}
			twin.Signature = "0x" + hex.EncodeToString(append(highS(sig[:64]), other))
		case SchemeBIP137:
			sig, err := base64.StdEncoding.DecodeString(v.Signature)
			if err != nil {
				t.Fatal(err)
			}
			header := (sig[0] - 27) ^ 1 + 27
			twin.Signature = base64.StdEncoding.EncodeToString(append([]byte{header}, highS(sig[1:])...))
		case SchemeICSecp256k1:
			twin.Signature = hex.EncodeToString(highS(unhex(t, v.Signature)))
		default:
			continue
		}
		n++
		if got, err := twin.judge(); got || err != nil {
			t.Errorf("%s %s: the twin is taken (%v)", v.ID, v.Scheme, err)
		}
	}
	if n < 20 {
		t.Errorf("%d twins", n)
	}
	message := []byte("m")
	addr, sig := bitcoinSigned(t, Regtest, message)
	w := stackOf(t, sig)
	parsed, err := ecdsa.ParseDERSignature(w[0][:len(w[0])-1])
	if err != nil {
		t.Fatal(err)
	}
	r, s := parsed.R(), parsed.S()
	rb, sb := r.Bytes(), s.Bytes()
	twin := highS(append(rb[:], sb[:]...))
	der := []byte{0x30, 0, 2, 0}
	rr := append([]byte{0}, twin[:32]...)
	for len(rr) > 1 && rr[0] == 0 && rr[1] < 0x80 {
		rr = rr[1:]
	}
	ss := append([]byte{0}, twin[32:]...)
	der[3] = byte(len(rr))
	der = append(append(append(der, rr...), 2, byte(len(ss))), ss...)
	der[1] = byte(len(der) - 2)
	if Verify(SchemeBIP322, Regtest, addr, message, simple(wire.TxWitness{append(der, 1), w[1]}), Extras{}) {
		t.Error("BIP-322: the twin is taken")
	}
}

// 8: what go-ethereum's HexToAddress makes an address of is none.
func TestTrap8LooseEthereumAddress(t *testing.T) {
	judged(t, 5, tagged(SchemeEIP191, "address"))
	message := []byte("m")
	good := EthereumAddress(ethereumOf(testKey().PubKey()))
	sig := SignEIP191(testKey(), message)
	swapped := []byte(good)
	i := strings.IndexFunc(good[2:], func(r rune) bool { return r >= 'A' && r <= 'F' }) + 2
	swapped[i] += 'a' - 'A'
	for name, x := range map[string]struct {
		addr string
		want bool
	}{
		"EIP-55":          {good, true},
		"lower":           {strings.ToLower(good), true},
		"upper":           {"0x" + strings.ToUpper(good[2:]), true},
		"one letter":      {string(swapped), false},
		"no 0x":           {good[2:], false},
		"0X":              {"0X" + good[2:], false},
		"leading zeros":   {"0x" + strings.Repeat("0", 24) + good[2:], false},
		"bytes before it": {"0xff" + good[2:], false},
		"odd digits":      {"0x0" + good[2:], false},
		"space":           {" " + good, false},
		"newline":         {good + "\n", false},
		"empty":           {"", false},
		"0x":              {"0x", false},
	} {
		if Verify(SchemeEIP191, NetworkEthereum, x.addr, message, sig, Extras{}) != x.want {
			t.Errorf("%s: want %v", name, x.want)
		}
		if _, err := ParseCAIP10("eip155:1:" + x.addr); (err == nil) != (name == "EIP-55") {
			t.Errorf("%s: as a wallet of a request: %v", name, err)
		}
	}
}

// 9: the library takes small-order and non-canonical keys, for which anybody
// forges.
func TestTrap9SmallOrder(t *testing.T) {
	judged(t, 8, tagged("", "small-order", "mixed-order", "malleable"))
	// Every encoding of a small-order point: five y, of which 0 and 1 have a
	// second spelling above the prime, each with both signs.
	var points [][32]byte
	for _, y := range append(slices.Clone(smallOrderY[:]), yOf("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		yOf("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")) {
		signed := y
		signed[31] |= 0x80
		points = append(points, y, signed)
	}
	forged := 0
	for _, key := range points {
		taken := false
		for m := range 64 {
			for _, r := range points {
				message, sig := []byte{byte(m)}, append(bytes.Clone(r[:]), make([]byte, 32)...)
				if taken = taken || ed25519.Verify(key[:], message, sig); verifyEd25519(key, message, sig) {
					t.Fatalf("key %x: forged", key)
				}
				if Verify(SchemeSolana, NetworkSolana, base58.Encode(key[:]), message, base58.Encode(sig), Extras{}) {
					t.Fatalf("Solana, key %x: forged", key)
				}
			}
		}
		if taken {
			forged++
		}
	}
	if forged < 8 {
		t.Errorf("the library takes forgeries for %d keys only: the test proves nothing", forged)
	}
	// A small-order R is refused beside an honest key, and y ≥ p anywhere.
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	pub := [32]byte(key.Public().(ed25519.PublicKey))
	sig := ed25519.Sign(key, []byte("m"))
	if !verifyEd25519(pub, []byte("m"), sig) {
		t.Fatal("an honest signature is refused")
	}
	for y := byte(0xed); y != 0; y++ { // p … 2²⁵⁵−1
		p := yOf("00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
		p[0] = y
		if strictPoint(p) {
			t.Errorf("y = p + %d is taken", y-0xed)
		}
	}
}

// 10: none of these schemes binds the network or the cluster. The text does.
func TestTrap10OnlyTheTextBinds(t *testing.T) {
	judged(t, 2, func(v vector) bool { return v.Scheme == SchemeBIP322 && slices.Contains(v.Tags, "replay") })
	message := []byte("m")
	_, sig := bitcoinSigned(t, Mainnet, message)
	for _, network := range []string{Testnet, Regtest} {
		addr, _ := bitcoinSigned(t, network, message)
		if !Verify(SchemeBIP322, network, addr, message, sig, Extras{}) {
			t.Errorf("%s: the standard says yes", network)
		}
	}
	// A request that is shown for another network or cluster is another text.
	g := testGrammar()
	g.Chains = append(g.Chains, regtestBTC)
	c, err := g.Parse(borrowText)
	if err != nil {
		t.Fatal(err)
	}
	key := testKey().PubKey().SerializeCompressed()
	onMain, _ := P2WPKH(Mainnet, key)
	onRegtest, _ := P2WPKH(Regtest, key)
	c.Signer = CAIP10{NamespaceBitcoin, bitcoinNetworks[0].reference, onMain}
	sig, err = SignBIP322Simple(testKey(), Mainnet, onMain, []byte(g.Render(c)))
	if err != nil {
		t.Fatal(err)
	}
	if !VerifySigner(SchemeBIP322, c.Signer, []byte(g.Render(c)), sig, Extras{}) {
		t.Fatal("the request itself is refused")
	}
	moved := *c
	moved.Signer = CAIP10{NamespaceBitcoin, bitcoinNetworks[2].reference, onRegtest}
	other := *c
	other.Cluster = "coffer-test-1/9b1de84c60f2a7735a41c0d7e2f86b19"
	for name, d := range map[string]Command{"network": moved, "cluster": other} {
		if _, err := g.Parse(g.Render(&d)); err != nil {
			t.Fatal(err)
		}
		if VerifySigner(SchemeBIP322, d.Signer, []byte(g.Render(&d)), sig, Extras{}) {
			t.Errorf("another %s: the request is taken", name)
		}
	}
}

// 11: one request has many signatures, all of them good.
func TestTrap11NotUnique(t *testing.T) {
	message := []byte(borrowText)
	addr, sig := bitcoinSigned(t, Regtest, message)
	if !Verify(SchemeBIP322, Regtest, addr, message, strings.TrimPrefix(sig, prefixSimple), Extras{}) {
		t.Error("without prefix: refused")
	}
	ethereum := EthereumAddress(ethereumOf(testKey().PubKey()))
	eth := unhex(t, SignEIP191(testKey(), message)[2:])
	eth[64] -= 27
	for _, s := range []string{SignEIP191(testKey(), message), "0x" + hex.EncodeToString(eth), "0x" + strings.ToUpper(hex.EncodeToString(eth))} {
		if !Verify(SchemeEIP191, NetworkEthereum, ethereum, message, s, Extras{}) {
			t.Errorf("%s: refused", s)
		}
	}
	// Fresh k: the same key, the same text, other bytes.
	script, err := ScriptOf(Regtest, addr)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := BIP322Digest(script, message)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 4 {
		nonce := sha256.Sum256([]byte{byte(i)})
		k, r, s := new(secp256k1.ModNScalar), new(secp256k1.ModNScalar), new(secp256k1.ModNScalar)
		k.SetByteSlice(nonce[:])
		var point secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(k, &point)
		point.ToAffine()
		r.SetByteSlice(point.X.Bytes()[:])
		s.SetByteSlice(digest[:])
		s.Add(new(secp256k1.ModNScalar).Mul2(r, &testKey().Key)).Mul(k.InverseNonConst())
		if s.IsOverHalfOrder() {
			s.Negate()
		}
		w := wire.TxWitness{append(ecdsa.NewSignature(r, s).Serialize(), 1), stackOf(t, sig)[1]}
		if !Verify(SchemeBIP322, Regtest, addr, message, simple(w), Extras{}) {
			t.Errorf("nonce %d: refused", i)
		}
		seen[simple(w)] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d signatures, want 4", len(seen))
	}
}
