package ledger

import (
	"errors"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger/fixed"
)

// provable is a ledger with a root, and the certificate over it.
func provable(t *testing.T) (c *cluster, id AccountID, cert Certificate) {
	t.Helper()
	c, _, borrower := lent(t)
	c.ask(borrower, c.borrowUSDT("20000000000"))
	for i := range 300 { // neighbours, in its own bucket and elsewhere
		n := scaleID(i)
		c.s.Accounts.put(n, Account{ID: n, Nonce: 1})
	}
	id = accountOf(c, borrower)
	near := id[:4] + strings.Repeat("0", 28)
	c.s.Accounts.put(near, Account{ID: near, Nonce: 1})
	far := id[:4] + strings.Repeat("f", 28)
	c.s.Suspense.put(far+"/btc", Suspended{Amount: fixed.New(5)})
	c.s.Suspense.put(id+"/btc", Suspended{Amount: fixed.New(11)})
	p := c.s.Pools.at("btc")
	p.Suspended = must(fixed.Add(p.Suspended, fixed.New(16)))
	c.s.Pools.put("btc", p)
	c.s.Root, c.s.RootHeight = c.s.root(), c.s.Height
	return c, id, c.certified()
}

// certified is a certificate over the head as it stands.
func (c *cluster) certified() Certificate {
	a := Approval{
		Cluster: c.s.Cluster, Epoch: c.s.Epoch().Number, Height: c.s.Height, Head: c.s.Head,
		RootHeight: c.s.RootHeight, Root: c.s.Root, Members: c.s.Epoch().MembersHash(),
	}
	cert := Certificate{Approval: a}
	for _, k := range c.keys[:c.s.Epoch().Q()] {
		cert.Signatures = append(cert.Signatures, SignApproval(k, a))
	}
	return cert
}

func TestProof(t *testing.T) {
	c, id, cert := provable(t)
	genesis := c.s.Genesis.Hash()
	want := map[string]fixed.Int{}
	for pool := range c.s.Pools.all() {
		want[pool] = c.s.Suspense.at(id + "/" + pool).Amount
	}
	for account := range c.s.Accounts.all() {
		p, err := c.s.Prove(account, cert)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Verify(genesis)
		if err != nil {
			t.Fatalf("%s: %v", account, err)
		}
		for _, x := range got.Pools {
			pool := c.s.Pools.at(x.Pool)
			total := must(fixed.Add(must(fixed.MulDivFloor(must(fixed.Add(pool.SupplyShares, pool.TreasuryShares)), pool.SupplyIndex, fixed.Ray)), pool.Suspended))
			if x.Total != total {
				t.Errorf("%s: total %s, the pool owes %s", x.Pool, x.Total, total)
			}
			if own := must(fixed.MulDivFloor(c.s.supplyShares(account, x.Pool), pool.SupplyIndex, fixed.Ray)); x.Supplied != own {
				t.Errorf("%s: %s supplied, the ledger owes %s", x.Pool, x.Supplied, own)
			}
			if account == id && x.Suspended != want[x.Pool] {
				t.Errorf("%s: %s suspended, want %s", x.Pool, x.Suspended, want[x.Pool])
			}
		}
	}
	// What comes after the root changes no proof under it.
	a := c.s.Accounts.at(id)
	a.Nonce += 7
	c.s.Accounts.put(id, a)
	c.s.Accounts.fold()
	if p, err := c.s.Prove(id, cert); err != nil {
		t.Error(err)
	} else if _, err := p.Verify(genesis); err != nil {
		t.Errorf("after a change: %v", err)
	}
	if p, err := c.s.Prove(id[:4]+strings.Repeat("f", 28), cert); err != nil {
		t.Errorf("suspense of a dropped account: %v", err)
	} else if got, err := p.Verify(genesis); err != nil || got.Pools[0].Suspended != fixed.New(5) {
		t.Errorf("suspense of a dropped account: %+v %v", got, err)
	}
	if _, err := c.s.Prove(strings.Repeat("e", 32), cert); !errors.Is(err, ErrNotThere) {
		t.Errorf("nobody's proof: %v", err)
	}
	other := cert
	other.Approval.Root[0]++
	if _, err := c.s.Prove(id, other); !errors.Is(err, ErrNoProof) {
		t.Errorf("another root: %v", err)
	}
}

// Whatever is changed in a proof, it is refused.
func TestProofTampered(t *testing.T) {
	c, id, cert := provable(t)
	whole, err := c.s.Prove(id, cert)
	if err != nil {
		t.Fatal(err)
	}
	if len(whole.Epochs) == 0 || len(whole.Path) < 18 {
		t.Fatalf("%d epochs, %d steps: too little to spoil", len(whole.Epochs), len(whole.Path))
	}
	raw := Marshal(whole)
	genesis := c.s.Genesis.Hash()
	withSums := func(p *AccountProof) *Step {
		for i := range p.Path {
			if len(p.Path[i].Node.Owed) > 0 {
				return &p.Path[i]
			}
		}
		t.Fatal("no step with sums")
		return nil
	}
	for name, spoil := range map[string]func(p *AccountProof){
		"leaf: a lower balance": func(p *AccountProof) {
			a := must(unpackAccount(string(p.Packed)))
			for i := range a.Positions {
				if !a.Positions[i].Supply.IsZero() {
					a.Positions[i].Supply = fixed.New(1)
				}
			}
			p.Packed = packAccount(nil, a)
		},
		"leaf: less suspense":   func(p *AccountProof) { p.Suspended[0].Suspended = fixed.New(10) },
		"leaf: no suspense":     func(p *AccountProof) { p.Suspended = nil },
		"leaf: no row":          func(p *AccountProof) { p.Packed = nil },
		"leaf: no packed row":   func(p *AccountProof) { p.Packed = append(p.Packed, 0) },
		"leaf: another account": func(p *AccountProof) { p.Account = scaleID(0) },
		"path: a hash":          func(p *AccountProof) { p.Path[3].Node.Hash[0]++ },
		"path: a side":          func(p *AccountProof) { p.Path[0].Left = !p.Path[0].Left },
		"path: a step less":     func(p *AccountProof) { p.Path = p.Path[1:] },
		"path: too long":        func(p *AccountProof) { p.Path = append(p.Path, make([]Step, maxPath)...) },
		"sum: lower":            func(p *AccountProof) { withSums(p).Node.Owed[0].Suspended = fixed.New(4) },
		"sum: left out":         func(p *AccountProof) { withSums(p).Node.Owed = nil },
		"sum: a pool twice":     func(p *AccountProof) { o := &withSums(p).Node; o.Owed = append(o.Owed, o.Owed[0]) },
		"sum: an overflow": func(p *AccountProof) {
			p.Path[1].Node.Owed = []Owed{{Pool: "btc", Shares: must(fixed.Parse("340282366920938463463374607431768211455"))}}
		},
		"root: number of leaves": func(p *AccountProof) { p.Accounts-- },
		"root: a total":          func(p *AccountProof) { p.Totals[0].Shares = fixed.New(1) },
		"root: an index":         func(p *AccountProof) { p.Totals[0].Index = fixed.New(1) },
		"root: a pool less":      func(p *AccountProof) { p.Totals = p.Totals[1:] },
		"root: the rest":         func(p *AccountProof) { p.Rest[0]++ },
		"root: of its own":       func(p *AccountProof) { p.Certificate.Approval.Root[0]++ },
		"head":                   func(p *AccountProof) { p.Certificate.Approval.Head[0]++ },
		"height":                 func(p *AccountProof) { p.Certificate.Approval.Height++ },
		"certificate: a signature less": func(p *AccountProof) {
			p.Certificate.Signatures = p.Certificate.Signatures[1:]
		},
		"certificate: one twice": func(p *AccountProof) { p.Certificate.Signatures[1] = p.Certificate.Signatures[0] },
		"certificate: a bad one": func(p *AccountProof) { p.Certificate.Signatures[0].Sig[0]++ },
		"members: of its own":    func(p *AccountProof) { p.Epochs[0].F++ },
		"members: no flip":       func(p *AccountProof) { p.Epochs, p.Flips = nil, nil },
		"members: no proof":      func(p *AccountProof) { p.Flips = nil },
		"members: a bad flip":    func(p *AccountProof) { p.Flips[0].Signatures[0].Sig[0]++ },
		"genesis":                func(p *AccountProof) { p.Genesis.Brand += "x" },
	} {
		var p AccountProof
		if err := Unmarshal(raw, &p); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Verify(genesis); err != nil {
			t.Fatalf("before it is spoilt: %v", err)
		}
		spoil(&p)
		if got, err := p.Verify(genesis); err == nil {
			t.Errorf("%s: taken as proof of %+v", name, got)
		}
	}
	if _, err := whole.Verify(Hash{1}); err == nil {
		t.Error("another genesis is taken")
	}
}

// A root whose leaves do not sum to what the pools say is no proof, even if
// everybody signed it.
func TestProofLeafLeftOut(t *testing.T) {
	c, id, _ := provable(t)
	a := c.s.Accounts.at(id)
	for i := range a.Positions {
		a.Positions[i].Supply = fixed.New(1)
	}
	c.s.Accounts.put(id, a)
	c.s.Root = c.s.root()
	p, err := c.s.Prove(id, c.certified())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(c.s.Genesis.Hash()); err == nil || !strings.Contains(err.Error(), "leaves sum to") {
		t.Errorf("a lowered leaf: %v", err)
	}
}
