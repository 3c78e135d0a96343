package sim

import (
	"slices"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// world is what happens outside the cluster: blocks, prices, fees, and
// whoever keeps signed transactions to send them at the worst time.
type world struct {
	prices    map[string]uint64 // USD · 10⁸
	crash     int               // step until which BTC is down
	congested int               // step until which blocks are full; 0: they are not
	hoarded   []held
	variants  map[inputKey]int // signatures made of one input
	funded    bool
	floor     map[string]uint64   // chain → height that no reorganisation goes below
	coins     []ledger.OutflowAct // on Bitcoin at a vault, sent by strangers and operators
}

type held struct {
	chain string
	raw   []byte
}

// base prices. What clients borrow is measured at these, so at rest every
// account is as healthy as when it asked.
var base = map[string]uint64{"btc": 50_000e8, "eth": 3_000e8, "usdt.eth": 1e8}

func (w *world) found(s *sim) {
	w.prices = map[string]uint64{"btc": base["btc"], "eth": base["eth"], "usdt.eth": base["usdt.eth"]}
	w.variants, w.floor = map[inputKey]int{}, map[string]uint64{}
	s.btc.Mine(3)
	s.eth.Mine(3)
}

// hoard keeps a signed transaction: anyone may have it, anyone may send it
// (spec: outflows R-5).
func (w *world) hoard(chain string, raw []byte) {
	w.hoarded = append(w.hoarded, held{chain, slices.Clone(raw)})
}

func (w *world) turn(s *sim) {
	w.fund(s)
	w.movePrices(s)
	if s.trouble(3) {
		s.btc.SetFees(uint64(s.between(satPerKVB, 2*satPerKVB)), 0)
		s.eth.SetFees(uint64(s.between(gwei, 2*gwei)), uint64(s.between(gwei, 2*gwei)))
	}
	w.congest(s)
	if w.funded && s.trouble(max(2, s.cfg.votes/4)) {
		w.give(s)
	}
	if len(w.hoarded) > 0 && s.trouble(15) {
		h := w.hoarded[s.rng.IntN(len(w.hoarded))]
		_ = s.chain(h.chain).Broadcast(ctx, h.raw) // whatever the answer
	}
	moved := w.mine(s, ledger.Bitcoin, 14, maxBitcoinReorg)
	if w.mine(s, ledger.Ethereum, 28, maxEthereumReorg) || moved {
		if err := s.auditor.chains(); err != nil {
			s.fail("auditor at bitcoin %d, ethereum %d: %w", s.btc.Height(), s.eth.Height(), err)
		}
	}
}

// congest fills the blocks of both chains for a while: what pays too little
// waits, and members learn of the price before the congestion is over.
func (w *world) congest(s *sim) {
	switch {
	case w.congested == 0 && !s.rest && s.trouble(1.5):
		w.congested = s.step + s.between(40, 160)
		times := uint64(s.between(2, 6))
		s.btc.Congest(times * satPerKVB)
		s.eth.Congest(times * gwei)
		s.rep.Congestions++
	case w.congested != 0 && s.step >= w.congested-30 && s.step < w.congested && s.trouble(30):
		s.btc.SetFees(8*satPerKVB, 0)
		s.eth.SetFees(3*gwei, 2*gwei)
	case w.congested != 0 && s.step >= w.congested:
		w.congested = 0
		s.btc.Congest(0)
		s.eth.Congest(0)
	}
}

func (w *world) mine(s *sim, chain string, percent float64, deepest int) bool {
	c := s.chain(chain)
	switch {
	case s.trouble(0.5):
		c.Forget() // every mempool is empty; who holds the bytes sends them again
		return false
	case s.trouble(1):
		depth := min(s.between(1, deepest), int(c.Height()-min(c.Height(), w.floor[chain])))
		if depth == 0 {
			return false
		}
		s.rep.Reorgs++
		s.rep.Blocks += depth + 1
		c.Reorg(depth)
		return true
	case s.chance(percent):
		s.rep.Blocks++
		c.Mine(1)
		return true
	}
	return false
}

// fund pays the genesis floats to the two vaults, as soon as there are any. No
// reorganisation takes them away again.
func (w *world) fund(s *sim) {
	if w.funded || s.reference.Epoch().Number == 0 {
		return
	}
	for _, role := range []string{address.RoleHot, address.RoleGas} {
		v, _ := s.reference.Vault(ledger.Ethereum, role)
		s.eth.Deposit(v.Address, "eth", floatWei)
	}
	pool, _ := s.reference.Vault(ledger.Bitcoin, address.RolePool)
	for range 3 {
		s.btc.Deposit(pool.Address, "btc", fixed.New(poolSats/3))
	}
	s.btc.Mine(1)
	s.eth.Mine(1)
	w.funded, w.floor[ledger.Ethereum], w.floor[ledger.Bitcoin] = true, s.eth.Height(), s.btc.Height()
	s.auditor.fund()
}

// give sends something straight to a vault: a stranger's coins, or operators' later
// float.
func (w *world) give(s *sim) {
	s.rep.Gifts++
	switch s.rng.IntN(4) {
	case 0:
		role := []string{address.RoleMinter, address.RolePool}[s.rng.IntN(2)]
		v, _ := s.reference.Vault(ledger.Bitcoin, role)
		sats := fixed.New(uint64(s.between(600, 300_000)))
		w.coins = append(w.coins, ledger.OutflowAct{Coin: s.btc.Deposit(v.Address, "btc", sats), Amount: sats})
	case 1:
		role := []string{address.RoleHot, address.RoleGas}[s.rng.IntN(2)]
		v, _ := s.reference.Vault(ledger.Ethereum, role)
		s.eth.Deposit(v.Address, "usdt.eth", fixed.New(uint64(s.between(1, 500*minUSDT))))
	default:
		role := []string{address.RoleHot, address.RoleGas}[s.rng.IntN(2)]
		v, _ := s.reference.Vault(ledger.Ethereum, role)
		s.eth.Deposit(v.Address, "eth", fixed.New(uint64(s.between(1, ether))))
	}
}

func (w *world) movePrices(s *sim) {
	if s.rest {
		return
	}
	for _, a := range s.genesis.Assets { // in one order, for one seed
		p := w.prices[a.ID] * uint64(s.between(9980, 10_020)) / 10_000
		w.prices[a.ID] = min(max(p, base[a.ID]*95/100), base[a.ID]*105/100)
	}
	if s.step > w.crash && s.chance(0.2) {
		w.crash = s.step + s.between(60, 240)
	}
}

// quote is what one member's venues say.
func (w *world) quote(s *sim, asset string) fixed.Int {
	p := w.prices[asset]
	if asset == "btc" && s.step < w.crash {
		p = p * 3 / 10
	}
	if !s.rest {
		p = p * uint64(s.between(9990, 10_010)) / 10_000
	}
	return fixed.New(p)
}

func (w *world) calm(s *sim) {
	for a, p := range base {
		w.prices[a] = p
	}
	w.crash, w.congested = 0, 0
	s.btc.Congest(0)
	s.eth.Congest(0)
	s.btc.SetFees(satPerKVB, 0)
	s.eth.SetFees(gwei, gwei)
}
