package node

import (
	"errors"
	"testing"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
)

// Foreign is what is so in a ledger that holds all that was committed when it was
// first seen: not in the one of a replica that replays, nor in one that cannot ask.
func TestForeignIsSaidByALedgerOfToday(t *testing.T) {
	spend := chains.SeenSpend{Anchor: "0xa:1", TxID: "0x1", Foreign: true, Final: true}
	see := func(spends ...chains.SeenSpend) map[string]chains.Observations {
		return map[string]chains.Observations{ledger.Ethereum: {Spends: spends}, ledger.Bitcoin: {}}
	}
	at := func(height uint64) map[string]uint64 {
		return map[string]uint64{ledger.Ethereum: height, ledger.Bitcoin: 1}
	}
	asked, index, fail := 0, uint64(15), error(nil)
	read := func() (uint64, error) { asked++; return index, fail }
	var f foreignWatch
	own := spend
	own.Foreign = false
	other := spend
	other.TxID = "0x2"
	for i, c := range []struct {
		seen  map[string]chains.Observations
		at    uint64
		fail  error
		known bool
		asked int
	}{
		{see(own), 10, nil, true, 0},
		{see(spend), 10, errors.New("no leader"), false, 1},
		{see(spend), 10, nil, false, 2},
		{see(spend), 14, nil, false, 2},
		{see(spend), 15, nil, true, 2},
		{see(spend, other), 15, nil, true, 3}, // committed by now is 15 still
		{see(own), 16, nil, true, 3},
		{see(spend), 12, nil, false, 4}, // asked again: it was forgotten
	} {
		fail = c.fail
		if known := f.known(c.seen, at(c.at), read); known != c.known || asked != c.asked {
			t.Errorf("%d: known %v, asked %d times", i, known, asked)
		}
	}
}

// Gas that we sent looks like a deposit of the native coin to a replica that has not
// applied that it was sent: nobody says so before its ledger is as new as the picture,
// while the finalized height under the same amount moves on.
func TestNativeDepositsAreToldByALedgerOfToday(t *testing.T) {
	const addr = "0x00000000000000000000000000000000000000aa"
	read := func() (uint64, error) { return 15, nil }
	var f foreignWatch
	for i, c := range []struct {
		final, at, wei uint64
		known          bool
	}{{90, 10, 7, false}, {91, 14, 7, false}, {92, 15, 7, true}, {93, 15, 9, true}, {94, 14, 8, false}} {
		in := chains.Seen{Fact: ledger.InflowFact{Chain: ledger.Ethereum, ID: ledger.NativeID(addr, c.final), Address: addr, Height: c.final, Amount: fixed.New(c.wei)}}
		seen := map[string]chains.Observations{ledger.Ethereum: {Inflows: []chains.Seen{in}}}
		if known := f.known(seen, map[string]uint64{ledger.Ethereum: c.at}, read); known != c.known {
			t.Errorf("%d: known %v", i, known)
		}
	}
}
