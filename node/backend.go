package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
)

// Version of this release.
const Version = "0.1.0"

// What package api asks of a node.
var _ api.Backend = (*Node)(nil)

// View is the applied ledger as of now.
func (n *Node) View() *ledger.State { v, _ := n.app.now(); return v }

// Submit has a command ordered and waits until this replica applied it.
func (n *Node) Submit(ctx context.Context, command []byte) (api.Outcome, error) {
	return n.outcome(n.cons.Submit(ctx, command))
}

// maxReadyLag is how many commands a node that gets traffic may be behind: about
// a second of a busy cluster.
const maxReadyLag = 2048

func (n *Node) outcome(r consensus.Receipt, err error) (api.Outcome, error) {
	if err != nil {
		return api.Outcome{}, told(err)
	}
	return api.Outcome{Height: r.Height, Code: r.Code}, nil
}

// told is an error of consensus in the words of the API.
func told(err error) error {
	if errors.Is(err, consensus.ErrNoLeader) {
		return api.ErrNoLeader
	}
	if o, ok := errors.AsType[*consensus.Overload](err); ok {
		return &api.Overloaded{Limit: o.Met(), After: o.After()}
	}
	if errors.Is(err, consensus.ErrTimeout) || errors.Is(err, consensus.ErrClosed) {
		return fmt.Errorf("%w: %w", api.ErrUnknown, err) // ordered or not: the leader was lost on the way
	}
	return err
}

// Verdict judges a client's signature among those that arrive otherwise.
func (n *Node) Verdict(ctx context.Context, c ledger.SignatureCheck) (bool, error) {
	return n.judges.ask(ctx, c)
}

// WaitHeight returns once this replica applied height.
func (n *Node) WaitHeight(ctx context.Context, height uint64) error {
	return n.cons.WaitHeight(ctx, height)
}

// ReadIndex is a height that covers everything acknowledged before the call.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	h, err := n.cons.ReadIndex(ctx)
	return h, told(err)
}

// Status is this node's own account of itself.
func (n *Node) Status() api.NodeStatus {
	s := n.cons.Status()
	v := n.View()
	st := api.NodeStatus{
		Name: n.cfg.Name, Member: n.self, Version: Version, Role: "follower", Commit: max(s.Height, v.Height+s.Unapplied, s.Certified.Height), Started: n.started,
		Operator: map[string]any{
			"peer": n.peers.Addr(), "term": s.Term, "promised": s.Promised, "certified": s.Certified.Height,
			"equivocations": s.Equivocated, "dir": n.cfg.Dir, "forked": s.Forked, "unproven": s.Unproven,
		},
	}
	switch votes := slices.ContainsFunc(n.cons.Servers(), func(s consensus.Server) bool { return s.Member == n.self && s.Votes }); {
	case s.Leading:
		st.Role = "leader"
	case !votes:
		st.Role = "non-voter"
	}
	if !v.Epoch().Has(n.self) {
		st.NotReady = append(st.NotReady, "this node holds no seat: "+n.waitsForSeat(v))
	}
	if s.HasLeader {
		st.Leader = n.name(s.Leader)
	} else {
		st.NotReady = append(st.NotReady, "no leader")
	}
	if s.HasLeader && !n.caughtUp() {
		st.NotReady = append(st.NotReady, "the leader is not heard")
	}
	if lag := st.Commit - v.Height; lag > maxReadyLag {
		st.NotReady = append(st.NotReady, fmt.Sprintf("%d commands behind", lag))
	}
	switch {
	case v.Epoch().Number == 0 && v.Next == nil:
		st.NotReady = append(st.NotReady, "waiting for every member's clock and pre-parameters")
	case v.Epoch().Number == 0:
		st.NotReady = append(st.NotReady, "keys are being generated")
	case v.Catching:
		st.NotReady = append(st.NotReady, "ledger time is catching up")
	}
	if err := n.cons.Err(); err != nil {
		st.Halted = err.Error()
	}
	st.NotReady = append(st.NotReady, n.room.notReady()...)
	st.Operator["disk"] = map[string]any{"freeBytes": n.room.bytes.Load(), "syncP99": time.Duration(n.room.slow.Load()).String(), "limits": n.room.limits.String()}
	n.alarms(&st, s)
	if pp, err := n.keys.PreParams(); err == nil {
		st.PreParams = pp
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range v.Keys.All() {
		if why := n.keyMissing[k.ID]; why != "" {
			st.Halted = "key-missing: " + why
		} else {
			st.Keys = append(st.Keys, k.ID)
		}
	}
	for _, c := range v.Genesis.Chains {
		if cs, ok := n.chainStatus[c.Name]; ok {
			st.Chains = append(st.Chains, cs)
			if cs.Failing != "" {
				st.NotReady = append(st.NotReady, "chain "+c.Name+": "+cs.Failing)
			}
		}
	}
	var peers []map[string]any
	for _, m := range v.Epoch().Members {
		if m.ID != n.self {
			peers = append(peers, map[string]any{"name": m.Name, "alive": n.peers.Alive(p2p.ID(m.ID)), "lastHeard": n.peers.LastHeard(p2p.ID(m.ID))})
		}
	}
	st.Operator["peers"] = peers
	return st
}

// alarms says of consensus what people have to look at.
func (n *Node) alarms(st *api.NodeStatus, s consensus.Status) {
	if s.Forked > 0 {
		st.NotReady = append(st.NotReady, fmt.Sprintf("other members approve another history or state than this node holds, last at height %d", s.Forked))
	}
	if s.Certified.Height > 0 {
		st.Checkpoint = s.Certified.String()
	}
	if s.Ahead > 0 {
		st.NotReady = append(st.NotReady, fmt.Sprintf("the operator's checkpoint at height %d is not reached: nothing is approved or signed here", s.Ahead))
	}
	if s.Unproven > 0 {
		st.NotReady = append(st.NotReady, fmt.Sprintf("the state taken over at height %d is not vouched for yet: nothing is approved or signed here", s.Unproven))
	}
	complaints, shunned, proofs := []map[string]any{}, []map[string]any{}, []map[string]any{}
	for _, x := range s.Complaints {
		complaints = append(complaints, map[string]any{"from": n.name(x.From), "leader": n.name(x.Leader), "reason": x.Reason, "at": time.UnixMilli(int64(x.Millis)).UTC()})
	}
	for _, x := range s.Shunned {
		shunned = append(shunned, map[string]any{"member": n.name(x.Member), "reason": x.Reason, "until": x.Until.UTC(), "times": x.Times})
	}
	for _, x := range s.Proofs {
		proofs = append(proofs, map[string]any{"member": n.name(x.Leader), "term": x.Term, "index": x.Index, "entries": x.Entries,
			"file": n.cons.ProofFile(x.Leader)})
	}
	st.Operator["complaints"], st.Operator["shunned"], st.Operator["proofs"] = complaints, shunned, proofs
	st.Operator["blamed"] = n.blameList()
}

// Sessions are the sessions this node has joined and not finished.
func (n *Node) Sessions() []api.Session {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []api.Session{}
	for id, s := range n.sessions {
		if joined, err := n.keys.Joined(id); err == nil && joined {
			s.Waiting = n.silent(s.Parties)
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b api.Session) int { return a.Since.Compare(b.Since) })
	return out
}

// silent are the members, by name, that are not heard now.
func (n *Node) silent(names []string) (out []string) {
	for _, m := range n.View().Epoch().Members {
		if m.ID != n.self && slices.Contains(names, m.Name) && !n.peers.Alive(p2p.ID(m.ID)) {
			out = append(out, m.Name)
		}
	}
	return out
}

func (n *Node) noteSession(r tss.Request, committee []ledger.MemberID) {
	names := n.names(committee)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sessions[r.Session] = api.Session{
		Session: hex.EncodeToString(r.Session[:]), Batch: r.Batch, Attempt: r.Attempt, Input: uint64(r.Input), Turn: uint64(r.Turn),
		Parties: names, Since: time.Now(),
	}
}

func (n *Node) dropSession(id tss.SessionID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.sessions, id)
}

// Signed are the finished sessions of a batch that this node took part in.
func (n *Node) Signed(batch uint64) []api.SignedSession {
	v := n.View()
	b, ok := v.Batches.Get(batch)
	if !ok {
		return nil
	}
	var out []api.SignedSession
	for _, a := range b.Attempts {
		inputs := 1
		if a.Bitcoin != nil {
			inputs = len(a.Bitcoin.Inputs)
		}
		for i := range inputs {
			s, ok := n.signature(inputKey{batch, a.Body, i})
			if !ok || !hasMember(s.Parties, n.self) {
				continue
			}
			if joined, err := n.keys.Joined(s.Session); err != nil || !joined {
				continue
			}
			out = append(out, api.SignedSession{
				Session: hex.EncodeToString(s.Session[:]), Attempt: s.Attempt, Input: s.Input, Turn: s.Turn,
				Parties: n.names(s.Parties), Signature: hex.EncodeToString(s.Sig.Bytes()), TxID: n.txid(b, a),
				Finished: time.UnixMilli(int64(s.Millis)).UTC(),
			})
		}
	}
	return out
}

// txid is known before the chain has the transaction on Bitcoin alone.
func (n *Node) txid(b ledger.Batch, a ledger.Attempt) string {
	if c, ok := n.chains[b.Chain]; ok && a.Bitcoin != nil {
		if u, err := c.Build(a); err == nil {
			return u.TxID
		}
	}
	return ""
}

// Certificate is the newest one at or above a height, with the headers between.
func (n *Node) Certificate(min uint64) (ledger.Certificate, []ledger.Header, bool) {
	c, ok := n.cons.Certificate(min)
	if !ok {
		return c, nil, false
	}
	var hs []ledger.Header
	const maxHeaders = 4096
	for h := max(min, 1); h <= c.Approval.Height; h++ {
		hd, err := n.cons.Header(h)
		if err != nil || len(hs) == maxHeaders {
			return c, nil, false
		}
		hs = append(hs, hd)
	}
	return c, hs, true
}

// Sightings are what this node saw at an account's addresses and the ledger has
// not counted.
func (n *Node) Sightings(account ledger.AccountID) []api.Sighting {
	v := n.View()
	ours := map[string]bool{}
	for _, c := range v.Genesis.Chains {
		for _, p := range []ledger.Purpose{ledger.PurposeSupply, ledger.PurposeRepay} {
			if w, ok := v.AddressOf(account, c.Name, p); ok {
				ours[c.Name+"/"+w.Address] = true
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []api.Sighting
	for _, c := range v.Genesis.Chains {
		o := n.seen[c.Name]
		for _, in := range o.Inflows {
			if v.Counted(in.Fact.ID) || !ours[c.Name+"/"+in.Fact.Address] {
				continue
			}
			total, _ := in.Fact.Amount.Uint64()
			out = append(out, api.Sighting{
				Chain: c.Name, Address: in.Fact.Address, Asset: in.Fact.Asset, TxID: in.Fact.ID, Amount: in.Fact.Amount.String(),
				Height: in.Fact.Height, Confirmations: in.Depth, Required: v.Genesis.InflowDepth(c.Name, total),
			})
		}
		for _, i := range o.Ignored {
			if ours[c.Name+"/"+i.Address] {
				out = append(out, api.Sighting{Chain: c.Name, Address: i.Address, TxID: i.TxID, Ignored: i.Reason})
			}
		}
	}
	return out
}

// operatorToken makes the one-time token of the operators' listener, readable
// by the node's owner alone.
func (n *Node) operatorToken() (string, error) {
	var b [16]byte
	rand.Read(b[:])
	t := hex.EncodeToString(b[:])
	if err := os.WriteFile(filepath.Join(n.cfg.Dir, "operator-token"), []byte(t+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write operator token: %w", err)
	}
	return t, nil
}
