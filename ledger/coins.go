package ledger

import "github.com/coffer-network/coffer/ledger/fixed"

// How coins of Bitcoin come and go, and which of them a balance counts. A coin has a
// name, so what strangers send to our scripts is told from what the books have coin by
// coin, and makes up for nothing that is gone:
//
//	from outside (a deposit, a float, what a vote lets in) ──Q──► Coins, numbered
//	our own output ──planned──► known by its transaction's id ──final──► Coins, number 0
//	anything else at our scripts: a stranger's, and in no balance

// coinIn enters a coin that came from outside. A balance that was asked for before
// does not count it: numbers tell, for every member alike (Check.Coins).
func (s *State) coinIn(f InflowFact, sats uint64) {
	s.CoinsIn++
	s.Coins.put(f.ID, Coin{Outpoint: f.ID, Sats: sats, Address: f.Address, Height: f.Height, State: CoinAvailable, Number: s.CoinsIn})
}

// coinGone takes a coin out that is gone for good since the block of a height. Below
// that block it is unspent, and whoever has applied this does not count it.
func (s *State) coinGone(k Coin, height uint64) {
	s.Coins.delete(k.Outpoint)
	m := s.Moves.at(moveKey(btcAsset, height))
	m.Gone = must(fixed.Add(m.Gone, fixed.New(k.Sats)))
	s.Moves.put(moveKey(btcAsset, height), m)
}

// openOutputs names every output of the transactions of ours that may be in a block and
// are not final, of batches under way and of those on HOLD, and says whether it goes to
// custody itself. Others pay whoever an outflow is owed to.
func (s *State) openOutputs() (ours map[string]bool) {
	ours = map[string]bool{}
	for _, open := range []*table[uint64, uint64]{&s.Live, &s.OnHold} {
		for id := range open.all() {
			for _, a := range s.Batches.at(id).Attempts {
				if a.Bitcoin == nil {
					continue
				}
				txid := a.Bitcoin.TxID()
				for i, o := range a.Bitcoin.Outputs {
					ours[outpoint(txid, i)] = o.Outflow == 0 || s.Outflows.at(o.Outflow).Account == ""
				}
			}
		}
	}
	return ours
}

// Ours says which coins a check of Bitcoin's balance counts: those that came from
// outside and were counted when it was asked for, and our own outputs, final or not.
// It tells for the state as it stands, and is made once for all coins of a balance.
//
// Why not whatever the ledger has by now: members look at different moments, and a
// deposit that is counted in between would be in the words of some.
func (s *State) Ours(c Check) func(outpoint string) bool {
	open := s.openOutputs()
	return func(outpoint string) bool {
		k, ok := s.Coins.get(outpoint)
		return ok && k.State != CoinSpent && k.Number <= c.Coins || open[outpoint]
	}
}
