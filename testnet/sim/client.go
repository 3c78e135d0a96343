package sim

import (
	"encoding/hex"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const clientCount = 8

// client is somebody with a wallet: even ones have a Bitcoin wallet, odd ones
// an Ethereum wallet. What it knows of the cluster it reads from some member.
type client struct {
	i       int
	key     *secp256k1.PrivateKey
	signer  address.CAIP10
	id      [16]byte
	account ledger.AccountID

	nonce uint64            // of the request under way
	until int               // step until which its answer is waited for
	made  uint64            // destinations
	last  map[string]string // pool → last destination
	sent  [][]byte          // some requests of before, to be sent again
}

func (s *sim) foundClients() {
	for i := range clientCount {
		secret := s.secret("client", uint64(i))
		c := &client{i: i, key: secp256k1.PrivKeyFromBytes(secret[:]), last: map[string]string{}}
		c.signer = s.payee(c, []string{"btc", "usdt.eth"}[i%2])
		c.id = address.AccountID(s.genesis.ClusterName(), c.signer)
		c.account = hex.EncodeToString(c.id[:])
		s.clients = append(s.clients, c)
	}
}

// payee is a fresh address of the client's for a pool's asset. Fresh, so that
// the auditor can tell on the chain alone which request a coin belongs to.
func (s *sim) payee(c *client, pool string) address.CAIP10 {
	secret := s.secret(fmt.Sprintf("payee %d", c.i), c.made)
	c.made++
	if c.made == 1 {
		secret = c.key.Key.Bytes() // the wallet's own address
	}
	pub := secp256k1.PrivKeyFromBytes(secret[:]).PubKey().SerializeCompressed()
	if pool == "btc" {
		return caip10(bitcoinCAIP2, must(address.P2WPKH(network, pub)))
	}
	return caip10(ethereumCAIP2, address.EthereumAddress(must(address.EthereumOf(pub))))
}

var network = must(address.BitcoinNetwork(bitcoinCAIP2[len("bip122:"):]))

func caip10(chain, addr string) address.CAIP10 { return must(address.SplitCAIP10(chain + ":" + addr)) }

// command makes an Intent of a text, signed with a key.
func (c *client) command(text string, key *secp256k1.PrivateKey) []byte {
	in := &ledger.Intent{Scheme: address.SchemeEIP191, Text: text}
	if c.i%2 == 0 {
		in.Scheme = address.SchemeBIP322
		own := must(address.P2WPKH(network, key.PubKey().SerializeCompressed()))
		in.Signature = must(address.SignBIP322Simple(key, network, own, []byte(text)))
	} else {
		in.Signature = address.SignEIP191(key, []byte(text))
	}
	return ledger.Marshal(ledger.Command{Intent: in})
}

func (s *sim) runClients() {
	if s.reference.Epoch().Number == 0 || !s.chance(60) {
		return
	}
	m := s.members[s.rng.IntN(len(s.members))]
	if !m.up || m.state.Epoch().Number == 0 {
		return
	}
	c := s.clients[s.rng.IntN(len(s.clients))]
	acc, ok := m.state.Accounts.Get(c.account)
	if c.until > s.step && acc.Nonce <= c.nonce {
		return
	}
	if !ok {
		c.request(s, acc, address.Command{Action: address.ActionOpenAccount}, nil)
		return
	}
	if len(c.sent) > 0 && s.chance(4) {
		s.submit(c.sent[s.rng.IntN(len(c.sent))]) // a request answered long ago, once more
		return
	}
	switch n := s.rng.IntN(100); {
	case n < 18 || len(acc.Positions) == 0 && n < 60:
		c.deposit(s, m.state)
	case n < 45:
		c.borrow(s, m.state, acc)
	case n < 65:
		c.withdraw(s, m.state, acc)
	case n < 75:
		c.repay(s, m.state)
	case n < 85:
		c.claim(s, m.state, acc)
	case n < 90:
		c.cancel(s, m.state, acc)
	default:
		c.bad(s, m.state, acc)
	}
}

// deposit sends coins: mostly useful ones, some below every minimum, some of a
// token that nobody lists.
func (c *client) deposit(s *sim, v *ledger.State) {
	pool := pools[s.rng.IntN(3)]
	if s.chance(80) {
		pool = pools[c.i/2%3] // most have one kind
	}
	amount := s.between(100_000, 100_000_000)
	switch pool {
	case "usdt.eth":
		amount = s.between(5_000, 80_000) * minUSDT
	case "eth":
		amount = s.between(ether/10, 2*ether)
	}
	switch {
	case s.chance(8) && pool == "btc":
		amount = s.between(1, 545) // dust
	case s.chance(12) && pool == "btc":
		amount = s.between(100_000, minSats-1) // suspense
	case s.chance(12) && pool == "eth":
		amount = s.between(1, minWei) // the same, or waits for more
	case s.chance(12) && pool != "btc":
		amount = s.between(1, 20*minUSDT-1) // suspense, or too little to be swept
	case s.chance(4) && pool != "btc":
		if w, ok := v.AddressOf(c.account, ledger.Ethereum, ledger.PurposeSupply); ok {
			s.eth.Deposit(w.Address, "unlisted", fixed.New(uint64(amount)))
		}
		return
	}
	s.deposit(v, c, pool, ledger.PurposeSupply, uint64(amount))
}

func (s *sim) deposit(v *ledger.State, c *client, pool string, why ledger.Purpose, amount uint64) {
	a, _ := s.genesis.Asset(pool)
	w, ok := v.AddressOf(c.account, a.Chain, why)
	if !ok {
		return
	}
	s.rep.Deposits++
	if pool == "eth" {
		s.rep.NativeDeposits++
	}
	s.chain(a.Chain).Deposit(w.Address, pool, fixed.New(amount))
}

// microUSD at base prices.
func microUSD(pool string, units uint64) uint64 {
	switch pool {
	case "btc":
		return units * 500
	case "eth":
		return units / gwei * 3
	}
	return units
}

// unitsOf is the other way round.
func unitsOf(pool string, micro uint64) uint64 {
	switch pool {
	case "btc":
		return micro / 500
	case "eth":
		return min(micro/3, 18*gwei) * gwei // as a word of 64 bits can hold
	}
	return micro
}

// balances of one account in micro-USD at base prices.
func balances(v *ledger.State, id ledger.AccountID, pool string) (supplied, owed uint64) {
	ps, _ := v.PositionOf(id)
	for _, p := range ps {
		if p.Pool == pool {
			s, _ := p.Collateral.Uint64()
			o, _ := p.Owed.Uint64()
			return microUSD(pool, s), microUSD(pool, o)
		}
	}
	return 0, 0
}

// borrow asks for up to 85 % of what the ratio allows at base prices, or for
// what nobody would be given.
func (c *client) borrow(s *sim, v *ledger.State, acc ledger.Account) {
	pool := pools[s.rng.IntN(3)]
	var room, owed uint64
	for _, other := range pools {
		coll, debt := balances(v, c.account, other)
		owed += debt
		if other != pool {
			room += coll / 10_000 * 6500 / 100 * 85
		}
	}
	if room <= owed {
		room = owed + 1
	}
	amount := (room - owed) * uint64(s.between(1, 60)) / 100
	if s.chance(10) {
		amount = 1_000_000 * minUSDT
	}
	c.payout(s, v, acc, address.ActionBorrow, pool, unitsOf(pool, amount), false)
}

func (c *client) withdraw(s *sim, v *ledger.State, acc ledger.Account) {
	pool := pools[s.rng.IntN(3)]
	have, _ := balances(v, c.account, pool)
	var owed uint64
	for _, p := range pools {
		_, debt := balances(v, c.account, p)
		owed += debt
	}
	if owed > 0 { // with debt: no more than leaves the gates at base prices far away
		have -= min(have, 2*owed)
	}
	amount := unitsOf(pool, have*uint64(s.between(1, 110))/100)
	if pool == "btc" {
		if s.chance(60) && amount > ledger.BoostLimit { // the pool's tier, and what lies just above it
			amount = uint64(s.between(boostSats, ledger.BoostLimit+1_000))
		}
	}
	c.payout(s, v, acc, address.ActionWithdraw, pool, amount, owed == 0 && s.chance(15))
}

func (c *client) repay(s *sim, v *ledger.State) {
	for _, pool := range pools {
		_, owed := balances(v, c.account, pool)
		micro := owed * uint64(s.between(10, 130)) / 100
		if micro > 75_000_000 {
			s.deposit(v, c, pool, ledger.PurposeRepay, unitsOf(pool, micro))
			return
		}
	}
}

func (c *client) claim(s *sim, v *ledger.State, acc ledger.Account) {
	for _, pool := range pools {
		if e, ok := v.Suspense.Get(c.account + "/" + pool); ok {
			n, _ := e.Amount.Uint64()
			c.payout(s, v, acc, address.ActionClaim, pool, n, false)
			return
		}
	}
}

func (c *client) cancel(s *sim, v *ledger.State, acc ledger.Account) {
	for id := range v.Queue.All() {
		if o, _ := v.Outflows.Get(id); o.Account == c.account {
			c.request(s, acc, address.Command{Action: address.ActionCancelOutflow, Outflow: id}, nil)
			return
		}
	}
}

// payout asks for coins at an address, mostly a fresh one, which on Ethereum
// sometimes refuses them.
func (c *client) payout(s *sim, v *ledger.State, acc ledger.Account, action, pool string, amount uint64, all bool) {
	if amount == 0 {
		return
	}
	g := v.Grammar()
	cmd := address.Command{Action: action, Pool: pool, To: s.payee(c, pool), Amount: g.Amount(pool, fmt.Sprint(amount))}
	if last, ok := c.last[pool]; ok && s.chance(15) {
		cmd.To.Address = last
	} else if pool != "btc" && s.chance(8) {
		s.eth.Revert(cmd.To.Address)
	} else if pool == "usdt.eth" && (s.trouble(max(6, s.cfg.votes)) || s.rep.Holds == 0 && s.trouble(95)) {
		s.eth.Mute(cmd.To.Address, true)
	}
	c.last[pool] = cmd.To.Address
	if all {
		cmd.Amount = g.MaxAmount(pool)
	}
	_, most, code := v.Quote(pool, cmd.To.Address, fixed.New(amount))
	if code != ledger.OK {
		return
	}
	cmd.MaxFee = g.Amount(pool, most.String())
	if s.chance(5) {
		cmd.MaxFee = g.Amount(pool, "1")
	}
	c.request(s, acc, cmd, &ask{
		account: c.account, pool: pool, to: cmd.To.Address, gross: fixed.New(amount), all: all || action == address.ActionClaim,
		fee: fixed.MustParse(cmd.MaxFee.Units),
	})
}

// request signs and sends. What it asks for is told to the auditor before the
// cluster hears of it.
func (c *client) request(s *sim, acc ledger.Account, cmd address.Command, asked *ask) {
	raw := c.command(c.text(s, acc, cmd), c.key)
	if asked != nil {
		s.auditor.asked(*asked)
	}
	c.nonce, c.until = acc.Nonce, s.step+40
	if c.sent = append(c.sent, raw); len(c.sent) > 6 {
		c.sent = c.sent[1:]
	}
	s.submit(raw)
}

func (c *client) text(s *sim, acc ledger.Account, cmd address.Command) string {
	cmd.Account, cmd.Signer, cmd.Nonce = c.id, c.signer, cmd.Nonce+acc.Nonce
	if cmd.Cluster == "" {
		cmd.Cluster = s.genesis.ClusterName()
	}
	if cmd.Expires == 0 {
		cmd.Expires = int64(s.now/1000) + 100
	}
	return s.reference.Grammar().Render(&cmd)
}

// bad is what must be refused whenever it comes. None of it would be refused
// for another reason alone.
func (c *client) bad(s *sim, v *ledger.State, acc ledger.Account) {
	g := v.Grammar()
	to := s.payee(c, "btc")
	cmd := address.Command{Action: address.ActionWithdraw, Pool: "btc", To: to, Amount: g.Amount("btc", fmt.Sprint(minSats)), MaxFee: g.Amount("btc", "20000")}
	key, spoil := c.key, func(text string) string { return text }
	switch s.rng.IntN(9) {
	case 0:
		other := s.secret("thief", uint64(s.step))
		key = secp256k1.PrivKeyFromBytes(other[:])
	case 1:
		cmd.Nonce = 1 << 40
	case 2:
		cmd.Cluster = "sim/00000000000000000000000000000000"
	case 3:
		cmd.Expires = int64(startMillis/1000) - 1
	case 4:
		cmd.Expires = int64(s.now/1000) + 1_000_000
	case 5:
		spoil = func(text string) string { return text + " " }
	case 6:
		if w, ok := v.Vault(ledger.Bitcoin, address.RoleMinter); ok {
			cmd.To.Address = w.Address
		}
	case 7:
		cmd.Amount = g.Amount("btc", "0")
	case 8:
		cmd.Amount = g.Amount("btc", "900000000000000")
	}
	raw := c.command(spoil(c.text(s, acc, cmd)), key)
	s.auditor.bad[hashOf(raw)] = true
	s.submit(raw)
}

// falseInflow is a deposit that nobody made, at an address of ours.
func (s *sim) falseInflow(v *ledger.State, n uint64) ledger.InflowFact {
	c := s.clients[int(n)%len(s.clients)]
	f := ledger.InflowFact{Chain: ledger.Bitcoin, ID: "none:0", Asset: "btc", Amount: fixed.New(100_000_000), Height: 1, Block: "none"}
	if w, ok := v.AddressOf(c.account, ledger.Bitcoin, ledger.PurposeSupply); ok {
		f.Address = w.Address
	}
	return f
}
