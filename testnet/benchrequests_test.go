//go:build unix

package testnet

import (
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger/address"
)

func TestRequestBenchSaysWhatItCannotMeasure(t *testing.T) {
	good := RequestBench{Clients: []int{1}, Duration: time.Second, Rounds: 1}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*RequestBench){
		"257 clients": func(b *RequestBench) { b.Clients = []int{257} },
		"[] clients":  func(b *RequestBench) { b.Clients = nil },
		"0 rounds":    func(b *RequestBench) { b.Rounds = 0 },
		"\"mysql\"":   func(b *RequestBench) { b.Without = []string{"mysql"} },
	} {
		b := good
		change(&b)
		if err := b.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Each request of a client must change what its last one said, or the benchmark would measure something cheaper.
func TestBenchRequestsDiffer(t *testing.T) {
	signer, err := RequestBench{Wallet: "solana"}.signer(nil, genesisWallets())
	if err != nil {
		t.Fatal(err)
	}
	g := &address.Grammar{Brand: brand, Wallets: genesisWallets()}
	u := &benchUser{signer: signer, nonce: 1}
	var on []bool
	for range 4 {
		s, err := u.next(g, "coffer-testnet/"+strings.Repeat("0", 32))
		if err != nil {
			t.Fatal(err)
		}
		c, err := g.Parse(s.Text)
		if err != nil {
			t.Fatal(err)
		}
		on = append(on, c.On)
		if !address.VerifySigner(s.Scheme, signer.ID(), []byte(s.Text), s.Signature, address.Extras{}) {
			t.Error("the signature does not verify")
		}
	}
	if !on[0] || on[1] || !on[2] || on[3] {
		t.Errorf("list required: %v, want yes and no in turn", on)
	}
}
