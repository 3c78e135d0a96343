package ledger

import (
	"fmt"
	"slices"
)

// Limits of a pause that one member alone may call (spec: committee §5). What
// must last longer is a halt, which needs FactQuorum.
const (
	MaxPauseSeconds   = 3_600
	maxPauses         = 2 // within pauseWindowMillis, each member's own count
	pauseWindowMillis = 86_400_000
)

// Pause stops all outflows for Seconds of ledger time; 0 ends the member's own
// pause. It stops new plans and sessions. It never blocks deposits, repayments,
// clocks, prices or the tracking of what is under way.
type Pause struct {
	Seconds uint64 `cbor:"1,keyasint"`
}

// MemberPause is what one member paused lately.
type MemberPause struct {
	Until uint64   `cbor:"1,keyasint"` // ledger time, ms
	Began []uint64 `cbor:"2,keyasint"` // those of the last 24 h, ascending
}

func (x *execution) pause(m MemberID, p Pause) Code {
	s := x.s
	if !s.Epoch().Has(m) {
		return NotAllowed
	}
	if p.Seconds > MaxPauseSeconds {
		return BadParam
	}
	own := s.Pauses.at(m.String())
	if p.Seconds == 0 {
		if own.Until > s.Millis {
			own.Until = s.Millis
			s.Pauses.put(m.String(), own)
			x.emit(Event{Name: "resumed", Note: m.String()})
		}
		return OK
	}
	own.Began = slices.DeleteFunc(slices.Clone(own.Began), func(t uint64) bool { return t+pauseWindowMillis <= s.Millis })
	if len(own.Began) >= maxPauses {
		return Limit
	}
	own.Began = append(own.Began, s.Millis)
	own.Until = s.Millis + p.Seconds*1000
	s.Pauses.put(m.String(), own)
	x.emit(Event{Name: "paused", Note: m.String()})
	return OK
}

// PausedBy is the member of the epoch in force whose pause ends last, and when,
// in ledger time, ms. False: nobody pauses.
func (s *State) PausedBy() (by MemberID, until uint64, paused bool) {
	for _, m := range s.Epoch().Members {
		if p := s.Pauses.at(m.ID.String()); p.Until > max(s.Millis, until) {
			by, until, paused = m.ID, p.Until, true
		}
	}
	return by, until, paused
}

// resume ends every pause: what Q members vote.
func (s *State) resume() {
	for _, id := range s.Pauses.keys() {
		p := s.Pauses.at(id)
		p.Until = min(p.Until, s.Millis)
		s.Pauses.put(id, p)
	}
}

// Stopped says why nothing may be planned or signed for an outflow now; empty
// where nothing stops it.
func (s *State) Stopped() string {
	if s.OutflowsHalt != "" {
		return "outflows are halted: " + s.OutflowsHalt
	}
	if by, until, paused := s.PausedBy(); paused {
		return fmt.Sprintf("outflows are paused by member %s until ledger time %d ms", by, until)
	}
	return ""
}
