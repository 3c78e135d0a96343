package main

import (
	"errors"
	"testing"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
)

// A failed demo's result stays the last line: its error is no second document.
func TestShownErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("the chain says no")
	err := error(&shownError{cause})
	var shown *shownError
	if !errors.As(err, &shown) || !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("%v hides its cause or itself", err)
	}
}

// A drill that is due is told in capitals, whether one was held or none.
func TestLastDrill(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	day := func(d int) *time.Time { x := now.AddDate(0, 0, d); return &x }
	for want, st := range map[string]*client.Status{
		"none of the key shares in force":                           {DrillDue: day(1)},
		"none of the key shares in force, OVERDUE since 2026-05-31": {DrillDue: day(-1)},
		ago(day(-2), now): {Drilled: day(-2), DrillDue: day(28)},
		ago(day(-31), now) + ", OVERDUE since 2026-05-31": {Drilled: day(-31), DrillDue: day(-1)},
	} {
		st.LedgerTime = now
		if got := lastDrill(st); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
