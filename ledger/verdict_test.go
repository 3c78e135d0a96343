package ledger

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/coffer-network/coffer/ledger/address"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

// signed712 signs a request as MetaMask's eth_signTypedData_v4 does.
func (w wallet) signed712(c *cluster, text string) *Intent {
	cmd := must(c.s.Grammar().Parse(text))
	message, ok := c.s.Grammar().Message(address.SchemeEIP712, w.id, cmd)
	if !ok {
		c.t.Fatal("no typed data")
	}
	h := sha3.NewLegacyKeccak256()
	h.Write(message)
	compact := ecdsa.SignCompact(w.key, h.Sum(nil), false)
	return &Intent{Scheme: address.SchemeEIP712, Text: text, Signature: "0x" + hex.EncodeToString(append(compact[1:], compact[0]))}
}

// eip712 is refused by name until the parameters say otherwise, and then the
// signature over the fields is good for the text (spec: requests §2).
func TestEIP712IsOffUntilEnabled(t *testing.T) {
	c := running(t)
	w := ethWallet(5)
	c.open(w)
	text := c.text(w, address.Command{Action: address.ActionCancel})
	in := w.signed712(c, text)
	before := frame(c.s)
	if code := c.run(Command{Intent: in}); code != SchemeUnsupported || frame(c.s) != before {
		t.Fatalf("off: %s, want %s and nothing changed", code, SchemeUnsupported)
	}
	if len(c.s.IntentChecks(in)) != 0 {
		t.Error("off: something to judge")
	}
	c.s.Params.EIP712 = true
	for name, bad := range map[string]*Intent{
		"personal_sign under its name": {Scheme: address.SchemeEIP712, Text: text, Signature: w.sign(text).Signature},
		"its signature as eip191":      {Scheme: address.SchemeEIP191, Text: text, Signature: in.Signature},
		"of another nonce": {Scheme: address.SchemeEIP712, Text: text, Signature: w.signed712(c,
			c.text(w, address.Command{Action: address.ActionCancel}, func(a *address.Command) { a.Nonce++ })).Signature},
		"of another action": {Scheme: address.SchemeEIP712, Text: text, Signature: w.signed712(c,
			c.text(w, address.Command{Action: address.ActionCancelOutflow})).Signature},
		"of another wallet": {Scheme: address.SchemeEIP712, Text: text, Signature: ethWallet(6).signed712(c, text).Signature},
	} {
		if code := c.run(Command{Intent: bad}); code != BadSignature {
			t.Errorf("%s: %s, want %s", name, code, BadSignature)
		}
	}
	btc := btcWallet(5)
	c.open(btc)
	other := btc.sign(c.text(btc, address.Command{Action: address.ActionCancel}))
	other.Scheme = address.SchemeEIP712
	if code := c.run(Command{Intent: other}); code != SchemeUnsupported {
		t.Errorf("a Bitcoin wallet: %s", code)
	}
	if code := c.run(Command{Intent: in}); code != OK {
		t.Errorf("on: %s", code)
	}
	if code := c.run(Command{Intent: w.sign(text)}); code != OK || c.s.Accounts.at(accountOf(c, w)).Nonce != 2 {
		t.Errorf("the same text under another scheme is the same request: %s", code)
	}
}

// Verdict functions for replays. known remembers, and forgets when it is told.
type known struct {
	verdicts map[Hash]bool
	asked    []SignatureCheck
	forget   func() bool
}

func (k *known) Verdict(c SignatureCheck) bool {
	k.asked = append(k.asked, c)
	v, ok := k.verdicts[c.Key()]
	if !ok {
		v = c.Verify()
		k.verdicts[c.Key()] = v
	}
	if k.forget != nil && k.forget() {
		clear(k.verdicts)
	}
	return v
}

type always bool

func (a always) Verdict(SignatureCheck) bool { return bool(a) }

// An empty cache, a warm one and one that forgets give the same state byte by
// byte, and what Execute asks was listed beforehand (spec: requests §5).
func TestVerdictsChangeNothing(t *testing.T) {
	c, lender, borrower := lent(t)
	eth := ethWallet(9)
	c.open(eth)
	random := rand.New(rand.NewPCG(3, 1))
	for i := range 40 {
		w := []wallet{lender, borrower, eth}[random.IntN(3)]
		in := w.sign(c.text(w, address.Command{Action: address.ActionCancel}))
		switch random.IntN(4) {
		case 0:
			in.Signature = lender.sign(in.Text + " ").Signature
		case 1:
			c.seq++
			a := NewAttestation(c.keys[i%4], c.s.Cluster, c.seq, KindClock, Clock{Millis: c.s.Millis + 100})
			if i%3 == 0 {
				a.Sig[5]++
			}
			c.run(Command{Attestation: a})
		case 2:
			c.ask(borrower, c.borrowUSDT("1000000"))
		}
		c.run(Command{Intent: in})
		if random.IntN(3) == 0 {
			c.run(Command{Intent: in}) // again: the stored result
		}
	}
	want := string(Marshal(c.s))
	replay := func(v Verdicts, each func(s *State, raw []byte)) *State {
		t.Helper()
		s, err := NewState(c.s.Genesis)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range c.log {
			if each != nil {
				each(s, raw)
			}
			s.ExecuteWith(raw, v)
		}
		return s
	}
	warm := &known{verdicts: map[Hash]bool{}}
	listed := map[Hash]bool{}
	replay(warm, func(s *State, raw []byte) {
		warm.asked = nil
		for _, check := range s.SignatureChecks(raw) {
			listed[check.Key()] = true
		}
	})
	for name, v := range map[string]Verdicts{
		"computed": computed{}, "empty": &known{verdicts: map[Hash]bool{}}, "warm": warm,
		"forgetting": &known{verdicts: map[Hash]bool{}, forget: func() bool { return random.IntN(2) == 0 }},
	} {
		if got := replay(v, nil); string(Marshal(got)) != want || got.Head != c.s.Head {
			t.Errorf("%s: another state", name)
		}
	}
	all := &known{verdicts: map[Hash]bool{}}
	replay(all, nil)
	good, bad := 0, 0
	for _, check := range all.asked {
		if !listed[check.Key()] {
			t.Errorf("asked for a signature of %q that nobody listed", check.Scheme)
		}
		if all.verdicts[check.Key()] {
			good++
		} else {
			bad++
		}
	}
	if good < 20 || bad < 5 {
		t.Errorf("%d good and %d bad signatures: too few to say anything", good, bad)
	}
	for _, lie := range []always{true, false} {
		if string(Marshal(replay(lie, nil))) == want {
			t.Errorf("always %v: the same state, so verdicts do not count", lie)
		}
	}
}

// Two checks share a key only if they are the same check: a byte that moves from
// one part to the next makes another.
func TestSignatureCheckKey(t *testing.T) {
	zero, one := uint8(0), uint8(1)
	base := SignatureCheck{
		Scheme: "ab", Network: "cd", Address: "ef", Message: []byte("gh"), Signature: "ij",
		Extras: address.Extras{ApplicationDomain: "kl", PublicKeyDER: []byte("mn")},
	}
	seen := map[Hash]string{base.Key(): "base"}
	for name, change := range map[string]func(*SignatureCheck){
		"scheme, network":    func(c *SignatureCheck) { c.Scheme, c.Network = "abc", "d" },
		"network, address":   func(c *SignatureCheck) { c.Network, c.Address = "cde", "f" },
		"address, message":   func(c *SignatureCheck) { c.Address, c.Message = "efg", []byte("h") },
		"message, signature": func(c *SignatureCheck) { c.Message, c.Signature = []byte("ghi"), "j" },
		"signature, domain":  func(c *SignatureCheck) { c.Signature, c.Extras.ApplicationDomain = "ijk", "l" },
		"domain, key":        func(c *SignatureCheck) { c.Extras.ApplicationDomain, c.Extras.PublicKeyDER = "klm", []byte("n") },
		"scheme":             func(c *SignatureCheck) { c.Scheme = "ax" },
		"network":            func(c *SignatureCheck) { c.Network = "cx" },
		"address":            func(c *SignatureCheck) { c.Address = "ex" },
		"message":            func(c *SignatureCheck) { c.Message = []byte("gx") },
		"signature":          func(c *SignatureCheck) { c.Signature = "ix" },
		"domain":             func(c *SignatureCheck) { c.Extras.ApplicationDomain = "kx" },
		"key":                func(c *SignatureCheck) { c.Extras.PublicKeyDER = []byte("mx") },
		"format 0":           func(c *SignatureCheck) { c.Extras.Format = &zero },
		"format 1":           func(c *SignatureCheck) { c.Extras.Format = &one },
	} {
		c := base
		change(&c)
		if other, ok := seen[c.Key()]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[c.Key()] = name
	}
}

// Chains for wallets alone are known, sorted and none that has coins.
func TestGenesisWallets(t *testing.T) {
	for name, tc := range map[string]struct {
		wallets []string
		ok      bool
	}{
		"none":             {nil, true},
		"two":              {[]string{"icp:test", "solana:devnet"}, true},
		"unsorted":         {[]string{"solana:devnet", "icp:test"}, false},
		"doubled":          {[]string{"icp:test", "icp:test"}, false},
		"one with coins":   {[]string{ethCAIP2}, false},
		"unknown":          {[]string{"cosmos:hub-4"}, false},
		"unknown Bitcoin":  {[]string{"bip122:00000000000000000000000000000000"}, false},
		"no reference":     {[]string{"solana"}, false},
		"an address in it": {[]string{"solana:devnet:x"}, false},
	} {
		g, _ := coreGenesis()
		g.Wallets = tc.wallets
		if err := g.Validate(); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
