package node

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"testing"

	"github.com/btcsuite/btcd/btcutil/base58"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

// requestSigner is a wallet of one scheme.
type requestSigner struct {
	id     address.CAIP10
	extras address.Extras
	sign   func(message []byte) string
}

func newRequestSigner(t testing.TB, scheme string) requestSigner {
	t.Helper()
	key := secp256k1.PrivKeyFromBytes(seedOf("signer", 1))
	pub := key.PubKey().SerializeCompressed()
	edwards := ed25519.NewKeyFromSeed(seedOf("signer", 2))
	edPub := []byte(edwards.Public().(ed25519.PublicKey))
	must := func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	recoverable := func(digest []byte) []byte {
		c := ecdsa.SignCompact(key, digest, false)
		return append(c[1:], c[0])
	}
	ethereum, err := address.EthereumOf(pub)
	if err != nil {
		t.Fatal(err)
	}
	eth := address.CAIP10{Namespace: address.NamespaceEthereum, Reference: "1337", Address: address.EthereumAddress(ethereum)}
	btc := address.CAIP10{Namespace: address.NamespaceBitcoin, Reference: btcCAIP2[len("bip122:"):], Address: must(address.P2WPKH(address.Regtest, pub))}
	switch scheme {
	case address.SchemeBIP322:
		return requestSigner{id: btc, sign: func(m []byte) string {
			return must(address.SignBIP322Simple(key, address.Regtest, btc.Address, m))
		}}
	case address.SchemeBIP137:
		return requestSigner{id: btc, sign: func(m []byte) string {
			digest := address.BIP137Digest(m)
			c := ecdsa.SignCompact(key, digest[:], true)
			c[0] += 8
			return base64.StdEncoding.EncodeToString(c)
		}}
	case address.SchemeEIP191:
		return requestSigner{id: eth, sign: func(m []byte) string { return address.SignEIP191(key, m) }}
	case address.SchemeEIP712:
		return requestSigner{id: eth, sign: func(m []byte) string {
			h := sha3.NewLegacyKeccak256()
			h.Write(m)
			return "0x" + hex.EncodeToString(recoverable(h.Sum(nil)))
		}}
	case address.SchemeSolana:
		return requestSigner{
			id:   address.CAIP10{Namespace: address.NamespaceSolana, Reference: solanaTest, Address: base58.Encode(edPub)},
			sign: func(m []byte) string { return base58.Encode(ed25519.Sign(edwards, m)) },
		}
	}
	der := append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, edPub...)
	sign := func(m []byte) string { return hex.EncodeToString(ed25519.Sign(edwards, m)) }
	if scheme == address.SchemeICSecp256k1 {
		head, _ := hex.DecodeString("3056301006072a8648ce3d020106052b8104000a034200")
		der = append(head, key.PubKey().SerializeUncompressed()...)
		sign = func(m []byte) string {
			digest := sha256.Sum256(m)
			return hex.EncodeToString(recoverable(digest[:])[:64])
		}
	}
	h := sha256.Sum224(der)
	return requestSigner{
		id:     address.CAIP10{Namespace: address.NamespaceICP, Reference: "test", Address: address.Principal(append(h[:], 2))},
		extras: address.Extras{PublicKeyDER: der}, sign: sign,
	}
}

const solanaTest = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1"

// requests is a log: everything up to keys in force, an account that opens, and
// count requests of it, under one scheme. With bad, each third is signed badly.
func requests(t testing.TB, scheme string, count int, bad bool) ([][]byte, ledger.Genesis) {
	t.Helper()
	c := running(t)
	s := newRequestSigner(t, scheme)
	g := c.s.Grammar()
	nonce := uint64(0)
	for i := range count + 1 {
		cmd := &address.Command{Action: address.ActionCancel, Signer: s.id, Cluster: c.s.Genesis.ClusterName(), Nonce: nonce, Expires: int64(c.s.Time() + 300)}
		if i == 0 {
			cmd.Action = address.ActionOpenAccount
		}
		cmd.Account = address.AccountID(cmd.Cluster, s.id)
		message, ok := g.Message(scheme, s.id, cmd)
		if !ok {
			t.Fatalf("%s signs nothing", scheme)
		}
		in := &ledger.Intent{Scheme: scheme, Text: g.Render(cmd), Signature: s.sign(message), Extras: s.extras}
		want := ledger.OK
		if bad && i%3 == 2 {
			in.Signature, want = s.sign(append([]byte("x"), message...)), ledger.BadSignature
		}
		if got := c.run(ledger.Command{Intent: in}); got != want {
			t.Fatalf("%s, request %d: %s, want %s", scheme, i, got, want)
		}
		if want == ledger.OK {
			nonce++
		}
	}
	return c.log, c.s.Genesis
}

var benchSchemes = []string{
	address.SchemeBIP322, address.SchemeBIP137, address.SchemeEIP191, address.SchemeEIP712,
	address.SchemeSolana, address.SchemeICEd25519, address.SchemeICSecp256k1,
}

// BenchmarkApplyByScheme applies requests whose signatures are judged inside
// Apply, and requests that had arrived before. Figures are requests a second of
// the one goroutine that applies.
func BenchmarkApplyByScheme(b *testing.B) {
	for _, scheme := range benchSchemes {
		const count = 500
		txs, genesis := requests(b, scheme, count, false)
		for _, how := range []string{"inside", "before"} {
			b.Run(scheme+"/"+how, func(b *testing.B) {
				n := 0
				for b.Loop() {
					b.StopTimer()
					v := testVerifier(b, verifierWorkers())
					a, err := newApp(genesis, v)
					if err != nil {
						b.Fatal(err)
					}
					a.Apply(txs[:len(txs)-count])
					if how == "before" {
						for _, tx := range txs[len(txs)-count:] {
							for _, c := range a.state.SignatureChecks(tx) {
								if _, err := v.ask(b.Context(), c); err != nil {
									b.Fatal(err)
								}
							}
						}
					}
					b.StartTimer()
					for _, r := range a.Apply(txs[len(txs)-count:]) {
						if r.Code != ledger.OK {
							b.Fatal(r.Code)
						}
					}
					n += count
					b.StopTimer()
					v.close()
					b.StartTimer()
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}
