package node

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/history"
)

// app is the ledger as consensus drives it. Readers get frozen views.
type app struct {
	state   *ledger.State // consensus alone works on it
	judges  *verifier
	history *history.Store // told of every command; nil: nobody
	strikes []signedStrike
	trail   *trail
	log     *slog.Logger

	mu      sync.Mutex
	view    *ledger.State
	changed chan struct{} // closed and replaced when view is
}

func newApp(g ledger.Genesis, judges *verifier) (*app, error) {
	s, err := ledger.NewState(g)
	if err != nil {
		return nil, err
	}
	a := &app{state: s, judges: judges, changed: make(chan struct{})}
	a.publish()
	return a, nil
}

func (a *app) publish() {
	v := a.state.Frozen()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = v
	close(a.changed)
	a.changed = make(chan struct{})
}

// now returns the present view and a channel that closes when there is a newer.
func (a *app) now() (*ledger.State, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.view, a.changed
}

// Check refuses what cannot be a command, and has its signatures judged while
// it is on its way.
func (a *app) Check(tx []byte) (attestation bool, err error) {
	if len(tx) > ledger.MaxCommand {
		return false, fmt.Errorf("command of %d bytes, at most %d", len(tx), ledger.MaxCommand)
	}
	var c ledger.Command
	if err := ledger.Unmarshal(tx, &c); err != nil {
		return false, err
	}
	if (c.Intent == nil) == (c.Attestation == nil) {
		return false, errors.New("neither an intent nor an attestation")
	}
	a.arrived([][]byte{tx})
	return c.Attestation != nil, nil
}

// arrived is told of commands before they are applied.
func (a *app) arrived(txs [][]byte) {
	v, _ := a.now()
	for _, tx := range txs {
		a.judges.expect(v, tx)
	}
}

func (a *app) Apply(txs [][]byte) []consensus.Result {
	rs := make([]consensus.Result, len(txs))
	var told []history.Record
	for i, tx := range txs {
		a.trail.begins(a.state.Height+1, tx)
		var r ledger.Result
		if a.struck(tx) {
			r = a.state.Strike(tx)
		} else {
			r = a.state.ExecuteWith(tx, a.judges)
		}
		rs[i] = consensus.Result{Header: r.Header, Code: r.Code}
		if a.history != nil {
			var c ledger.Command
			known := &c
			if ledger.Unmarshal(tx, &c) != nil {
				known = nil
			}
			told = append(told, history.Of(a.state, known, r))
		}
	}
	a.trail.ends()
	a.publish()
	if a.history != nil {
		a.history.Applied(told...)
	}
	return rs
}

func (a *app) View() consensus.View {
	s := a.state
	v := consensus.View{Height: s.Height, Head: s.Head, Epoch: s.Epoch(), PlannedAt: s.PlannedAt}
	if v.Epoch.Number > 0 { // before that time rests where the genesis says
		v.Millis = s.Millis
	}
	if o := s.Opening; o != nil {
		v.Opened = &consensus.Opened{Height: o.Height, Epoch: o.Epoch}
	}
	for _, m := range s.Followers() {
		v.Followers = append(v.Followers, m.ID)
	}
	return v
}

func (a *app) Snapshot() (consensus.Snapshot, error) { return snapshot{a.state.Frozen()}, nil }

type snapshot struct{ s *ledger.State }

func (s snapshot) Encode(w io.Writer) error { return s.s.Encode(w) }

func (a *app) Decode(r io.Reader) (consensus.Body, error) {
	s, err := ledger.ReadState(r)
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != io.EOF {
		return nil, errors.New("bytes after the state")
	}
	if s.Cluster != a.state.Cluster {
		return nil, errors.New("snapshot of another cluster")
	}
	return body{a, s}, nil
}

type body struct {
	a *app
	s *ledger.State
}

func (b body) Height() uint64    { return b.s.Height }
func (b body) Head() ledger.Hash { return b.s.Head }
func (b body) Epochs() ([]ledger.Epoch, []ledger.Certificate) {
	return b.s.Epochs, b.s.Flips
}
func (b body) Adopt() { b.a.state = b.s; b.a.publish() }
