package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
)

// Only the parties of a session see what a culprit sent, and they may be fewer
// than the f+1 members whose words count. So a party shows the signed envelopes
// to everybody with a seat, who makes the same checks and says Blame by itself
// (spec: signing §10). Nobody's word is believed on the way: a case that does not
// convict here costs its sender an answer and nothing else.

// caseKey: one session is one failure, whoever shows it and by whichever check.
type caseKey struct {
	culprit ledger.MemberID
	session ledger.Hash
}

// heldCase is what this node found proven.
type heldCase struct {
	blame ledger.Blame
	from  ledger.MemberID // who showed it first; this node itself
	at    time.Time
	body  []byte                   // what goes to the others; nil: another party saw it
	todo  map[ledger.MemberID]bool // who has not taken it
	sent  time.Time
}

const (
	// caseLife is how long this node says what it found proven: the ledger takes
	// it within seconds, or is stopped for longer than anybody waits for it.
	caseLife = 10 * time.Minute
	// caseShown is how long it is shown to who does not take it: f+1 of those who
	// are there suffice.
	caseShown = time.Minute
	// maxCases against one member that another has shown and are held. A culprit can
	// sign any number; one a minute counts.
	//
	// Why not of all who show them together: a culprit that shows one bad session
	// here and another there fills them, and is never convicted of the real one.
	maxCases = 16
	// judgeEvery bounds what one member has this one compute and read: about 10 ms
	// a case. A refused one comes again in a second.
	judgeEvery = 500 * time.Millisecond
)

// Why a case is not taken: the codes of the answer (p2p.RemoteError).
const (
	caseNoSeat    = p2p.CodeFirstFree + iota // its sender holds no seat in the epoch in force here
	caseEarly                                // within judgeEvery of its sender's last one
	caseMalformed                            // it does not decode
	caseUnknown                              // of a batch that the ledger does not know, here or yet
	caseUnproven                             // it convicts nobody
	caseTooMany                              // maxCases of its sender against that member are held
)

func refuseCase(code byte, format string, a ...any) error {
	return &p2p.RemoteError{Code: code, Text: "case: " + fmt.Sprintf(format, a...)}
}

// judge makes a session's checks on a case, against this node's own ledger.
func (n *Node) judge(v *ledger.State, c tss.Case) (ledger.Blame, error) {
	b, ok := v.Batches.Get(c.Named.Batch)
	if !ok {
		return ledger.Blame{}, refuseCase(caseUnknown, "batch %d is not known here yet", c.Named.Batch)
	}
	// No name of a session binds the try of its KeyShares. A payment is signed
	// with those in force, a test signature perhaps with others.
	try := uint64(0)
	if k, ok := v.Keys.Get(c.Named.Key); ok && b.Kind == ledger.BatchPay && b.Key == k.ID && k.Epoch == c.Named.Epoch {
		try = k.Try
	}
	d, err := n.tss.Judge(c, try)
	if err != nil {
		return ledger.Blame{}, refuseCase(caseUnproven, "%v", err)
	}
	return ledger.Blame{
		Member: ledger.MemberID(d.Culprit), Evidence: d.Evidence, Session: ledger.Hash(d.Session), Round: uint8(d.Round), Check: d.Check,
		Batch: c.Named.Batch, Attempt: c.Named.Attempt,
	}, nil
}

// accuse shows the others what this node saw as a party, if they can judge it.
func (n *Node) accuse(b *tss.Blame, r tss.Request) {
	c, ok := b.CaseOf(r)
	if !ok {
		return
	}
	v, _ := n.app.now()
	f, err := n.judge(v, c)
	if err != nil {
		n.log.Info("a culprit that only the parties of its session can judge", slog.Any("blame", b), slog.Any("why", err))
		return
	}
	body := c.Marshal()
	if len(body) > p2p.MaxRequest {
		n.log.Warn("evidence too long to be shown to the others", slog.Any("blame", b), slog.Int("bytes", len(body)))
		body = nil
	}
	n.hold(v, f, n.self, body)
}

// takeCase judges what another member shows.
func (n *Node) takeCase(_ context.Context, from p2p.ID, body []byte) ([]byte, error) {
	m := ledger.MemberID(from)
	v, _ := n.app.now()
	if !v.Epoch().Has(m) {
		return nil, refuseCase(caseNoSeat, "%s holds no seat", m)
	}
	n.mu.Lock()
	early := time.Since(n.judged[m]) < judgeEvery
	if !early {
		n.judged[m] = time.Now()
	}
	n.mu.Unlock()
	if early { // before anything of it is decoded: that is work too
		return nil, refuseCase(caseEarly, "one each %s", judgeEvery)
	}
	c, err := tss.ReadCase(body)
	if err != nil {
		return nil, refuseCase(caseMalformed, "%v", err)
	}
	f, err := n.judge(v, c)
	if err != nil {
		n.log.Warn("case refused", slog.String("peer", n.name(m)), slog.Any("err", err))
		return nil, err
	}
	if !n.hold(v, f, m, nil) {
		return nil, refuseCase(caseTooMany, "%d of yours against %s are held", maxCases, f.Member)
	}
	for _, e := range c.Envelopes {
		if err := n.keepEvidence(e); err != nil {
			n.log.Error("evidence not kept", slog.Any("err", err))
			break
		}
	}
	return nil, nil
}

// hold keeps what is to be said, and shown if this node saw it. False: too many of
// whom it is from.
func (n *Node) hold(v *ledger.State, f ledger.Blame, from ledger.MemberID, body []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := caseKey{f.Member, f.Session}
	held := 0
	for x, h := range n.cases {
		if x.culprit == k.culprit && h.from == from {
			held++
		}
	}
	h := n.cases[k]
	switch {
	case h != nil && (h.body != nil || body == nil):
		return true
	case h == nil && held >= maxCases:
		return false
	case h == nil:
		h = &heldCase{blame: f, from: from, at: time.Now()}
		n.cases[k] = h
	}
	h.body, h.todo = body, map[ledger.MemberID]bool{}
	for _, m := range v.Epoch().Members {
		if body != nil && m.ID != n.self && m.ID != f.Member {
			h.todo[m.ID] = true
		}
	}
	n.log.Warn("a member broke the signing protocol", slog.String("member", f.Member.String()[:8]), slog.String("check", f.Check),
		slog.Uint64("batch", f.Batch), slog.String("evidence", f.Evidence.String()))
	return true
}

// provenLocked is what this node has to say of others, in one order. n.mu is held.
func (n *Node) provenLocked() (out []ledger.Blame) {
	for k, h := range n.cases {
		if time.Since(h.at) > caseLife {
			delete(n.cases, k)
			continue
		}
		out = append(out, h.blame)
	}
	slices.SortFunc(out, func(a, b ledger.Blame) int { return bytes.Compare(a.Session[:], b.Session[:]) })
	return out
}

// showCases shows what this node saw to every member until it has taken it, or a
// minute has passed.
func (n *Node) showCases(ctx context.Context, advanced func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		advanced()
		type send struct {
			k    caseKey
			to   ledger.MemberID
			body []byte
		}
		var sends []send
		n.mu.Lock()
		for k, h := range n.cases {
			if time.Since(h.sent) < time.Second || time.Since(h.at) > caseShown {
				continue
			}
			h.sent = time.Now()
			for m := range h.todo {
				sends = append(sends, send{k, m, h.body})
			}
		}
		n.mu.Unlock()
		for _, x := range sends {
			n.wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				if _, err := n.peers.Request(ctx, p2p.ID(x.to), requestCase, x.body); err != nil {
					return // again in a second
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				if h := n.cases[x.k]; h != nil {
					delete(h.todo, x.to)
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
