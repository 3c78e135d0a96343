package api

import (
	"net/http"
	"testing"

	"github.com/coffer-network/coffer/ledger"
)

// "Codes are stable strings and part of the API; a test asserts that each has
// an HTTP status." (spec: lending §7)
func TestEveryCodeHasAStatusAndAdvice(t *testing.T) {
	for _, c := range ledger.Codes {
		if _, ok := statuses[c]; !ok {
			t.Errorf("%s has no HTTP status", c)
		}
		if advice[c] == "" {
			t.Errorf("%s has no advice", c)
		}
	}
	if len(statuses) != len(ledger.Codes) {
		t.Errorf("%d statuses for %d codes", len(statuses), len(ledger.Codes))
	}
	for _, c := range []ledger.Code{noLeader, timeout, overloaded, unavailable} {
		if statusOf(c) != http.StatusServiceUnavailable || advice[c] == "" {
			t.Errorf("%s is %d", c, statusOf(c))
		}
	}
}

func TestStatusesAreThoseOfTheSpecification(t *testing.T) {
	for want, codes := range map[int][]ledger.Code{
		400: {ledger.Malformed, ledger.WrongCluster, ledger.SchemeUnsupported},
		401: {ledger.BadSignature},
		403: {ledger.SignerNotLinked, ledger.NotAllowed},
		404: {ledger.UnknownAccount, ledger.UnknownPool, ledger.UnknownOutflow},
		409: {ledger.BadNonce, ledger.AccountExists, ledger.AccountLinked, ledger.SoleAccount, ledger.DuplicateInflow},
		503: {ledger.Paused, ledger.Frozen, ledger.Halted, ledger.CatchingUp, ledger.PriceStale, ledger.PriceSuspect},
		500: {ledger.Broken},
		422: {ledger.HealthFactor, ledger.MaxLTV, ledger.Expired, ledger.BelowMin, ledger.FeeTooHigh, ledger.DestinationRefused, ledger.Limit},
	} {
		for _, c := range codes {
			if got := statusOf(c); got != want {
				t.Errorf("%s is %d, want %d", c, got, want)
			}
		}
	}
}

func TestPostedForgetsTheOldestFirst(t *testing.T) {
	h := newPosted()
	id := func(i int) ledger.Hash { return ledger.Hash{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxPosted + 2 {
		h.add(id(i), waiting{nonce: uint64(i)})
	}
	for i, want := range map[int]bool{0: false, 1: false, 2: true, maxPosted + 1: true} {
		if r, ok := h.find(id(i)); ok != want || ok && r.nonce != uint64(i) {
			t.Errorf("text %d remembered: %v, want %v", i, ok, want)
		}
	}
	h.add(id(5), waiting{nonce: 5})
	if len(h.byID) != maxPosted || len(h.ring) != maxPosted {
		t.Errorf("%d remembered in a ring of %d, want %d", len(h.byID), len(h.ring), maxPosted)
	}
}
