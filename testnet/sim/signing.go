package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/tss"
)

// ctx is for calls that never wait here.
var ctx = context.Background()

type sessionName = tss.SessionID

// inputKey names one signature. A variant other than 0 exists only where a
// mistake is planted.
type inputKey struct {
	batch, body, variant uint64
	input                int
}

type signature struct {
	inputKey
	sig tss.Signature
}

// share is a signature that others have not confirmed.
type share struct {
	signature
	todo []*member
}

type workKey struct {
	node.AttemptKey
	input int
}

// work is where a member stands with one signature: spec signing §3.
type work struct {
	turn    uint64
	joined  int
	suspect map[ledger.MemberID]bool
	session *session
}

// session is one turn of the signing protocol, as far as it can be seen from
// outside: who joined, and what came of it.
type session struct {
	req    tss.Request
	key    inputKey
	turn   uint64
	joined []*member
	lives  []int
	begun  int
	ends   int // step at which it is through, once all have joined
	fate   fate
	failed bool
	done   bool
	blamed []ledger.MemberID
}

type fate uint8

const (
	fateAll     fate = iota // all parties hold the signature
	fateOne                 // one does, the others saw a failure
	fateKilled              // one does, and dies before it is on its disk (C4)
	fateSilent              // one does, on disk, and dies before it tells (C5)
	fateAborted             // nobody does
	fateDies                // a party is killed in mid-protocol (C3)
	fateSpoilt              // a traitor sends what no honest party signs
)

// In steps. A session that not all join is given up, as is one of whose parties
// nothing is heard.
const (
	joinSteps  = 8
	pauseSteps = 10
	silence    = 3 // steps until a dead member is noticed
)

// tests are the test signatures that this member holds of open batches.
func (m *member) tests() []ledger.TestSig {
	var ts []ledger.TestSig
	for id := range m.state.Live.All() {
		b, _ := m.state.Batches.Get(id)
		if b.Kind != ledger.BatchTest {
			continue
		}
		if s, ok := m.disk.sigs[inputKey{batch: id, body: b.Newest().Body}]; ok {
			ts = append(ts, ledger.TestSig{Batch: id, Signature: s.sig.Bytes()})
		}
	}
	return ts
}

func (m *member) sign() {
	m.gaveUp = slices.DeleteFunc(m.gaveUp, func(g ledger.GaveUp) bool {
		b, ok := m.state.Batches.Get(g.Batch)
		return ok && (b.Done || b.Newest().K != g.Attempt)
	})
	m.lostKeygens()
	for _, j := range node.PlanSigning(m.state, m.id) {
		if m.up && m.s.step >= m.pausedAt[node.AttemptKey{Batch: j.Batch.ID, Attempt: j.Attempt.K}] {
			m.signJob(j.Batch, j.Attempt)
		}
	}
}

// signJob makes the checks of spec signing §2.1 in the order of package node. A
// traitor makes none: it joins whatever it may.
func (m *member) signJob(b ledger.Batch, a ledger.Attempt) {
	k := node.AttemptKey{Batch: b.ID, Attempt: a.K}
	at := inputKey{batch: b.ID, body: a.Body}
	if build := m.s.cfg.mistakes.build; build != nil && b.Kind == ledger.BatchPay {
		if other, ok := build(m, b, a); ok {
			a, at.variant = other, a.K+1
		}
	}
	for n := inputsOf(a); at.input < n; at.input++ {
		if _, ok := m.disk.sigs[at]; !ok {
			break
		}
	}
	if at.input == inputsOf(a) || !m.liar && !m.certified(a.Height) || m.liar && m.s.trouble(30) {
		return
	}
	timely, known := m.disk.verdicts[k]
	switch {
	case b.Kind != ledger.BatchPay || m.liar:
	case !known:
		return
	case !timely:
		m.giveUp(k)
		return
	case node.Unproven(m.state, b, m.weighed) != "" && !m.s.cfg.mistakes.unweighed:
		m.s.rep.Unproven++
		return
	}
	if m.s.reached(pointCertified, m, b.ID) {
		return
	}
	w := m.work[workKey{k, at.input}]
	if w == nil {
		w = &work{suspect: map[ledger.MemberID]bool{}}
		m.work[workKey{k, at.input}] = w
	}
	if ss := w.session; ss != nil {
		switch called, ok := m.called(at, k, w.turn); {
		case ok:
			w.turn = called
		case ss.failed || ss.done:
			for _, id := range ss.blamed {
				w.suspect[id] = id != m.id
			}
			w.turn++
		default:
			return
		}
		w.session = nil
	}
	if w.joined >= ledger.TurnLimit {
		m.giveUp(k)
		return
	}
	w.turn = m.pickTurn(a, w.turn, w.suspect)
	committee := a.Committee(w.turn)
	if !slices.Contains(committee, m.id) {
		if called, ok := m.called(at, k, w.turn); ok {
			w.turn = called
		}
		return
	}
	m.join(w, b, a, at, committee)
}

// giveUp rests the attempt here and says so; the next try begins anew.
func (m *member) giveUp(k node.AttemptKey) {
	m.gaveUp = append(m.gaveUp, ledger.GaveUp{Batch: k.Batch, Attempt: k.Attempt})
	m.pausedAt[k] = m.s.step + pauseSteps
	for i := range 100 {
		delete(m.work, workKey{k, i})
	}
}

func inputsOf(a ledger.Attempt) int {
	if a.Bitcoin != nil {
		return len(a.Bitcoin.Inputs)
	}
	return 1
}

func (m *member) pickTurn(a ledger.Attempt, at uint64, suspect map[ledger.MemberID]bool) uint64 {
	turn, _ := a.NextTurn(at, func(committee []ledger.MemberID) bool {
		return !slices.ContainsFunc(committee, func(id ledger.MemberID) bool {
			return id != m.id && (suspect[id] || !m.alive(id))
		})
	})
	return turn
}

func (m *member) alive(id ledger.MemberID) bool {
	o := m.s.member(id)
	return o.up || m.s.step-o.downAt < silence
}

func (s *sim) member(id ledger.MemberID) *member {
	return s.members[slices.IndexFunc(s.members, func(m *member) bool { return m.id == id })]
}

// called: somebody began a session of a later turn that this member is to join.
func (m *member) called(at inputKey, k node.AttemptKey, turn uint64) (uint64, bool) {
	for _, ss := range m.s.open {
		if ss.key == at && ss.req.Attempt == k.Attempt && ss.turn > turn && ss.turn <= 2*ledger.TurnLimit &&
			slices.Contains(ss.req.Parties, tss.PartyID(m.id)) {
			return ss.turn, true
		}
	}
	return 0, false
}

func (m *member) join(w *work, b ledger.Batch, a ledger.Attempt, at inputKey, committee []ledger.MemberID) {
	r, err := m.request(b, a, at, w.turn, committee)
	if errors.Is(err, node.ErrFence) { // the ledger is behind the chain, or the other way round
		m.s.rep.Fenced++
		m.pausedAt[node.AttemptKey{Batch: b.ID, Attempt: a.K}] = m.s.step + pauseSteps
		return
	}
	if err != nil {
		if m.s.cfg.mistakes.build == nil && m.state.Holds(b) { // a coin may be undone with its block
			m.s.fail("member %d, batch %d attempt %d: %w", m.i, b.ID, a.K, err)
		}
		return
	}
	if g := (ledger.Generation{Key: b.Key, Epoch: a.Epoch, Try: a.Try}); !m.disk.shares[g] {
		m.s.fail("member %d is to sign batch %d with %s and does not hold it", m.i, b.ID, g)
		return
	}
	w.joined++
	if m.disk.joined[r.Session] {
		w.turn++ // joined in an earlier life: never again
		return
	}
	m.disk.joined[r.Session] = true
	ss := m.s.sessions[r.Session]
	if ss == nil {
		ss = &session{req: r, key: at, turn: w.turn, begun: m.s.step}
		m.s.sessions[r.Session] = ss
		m.s.open = append(m.s.open, ss)
		m.s.rep.Sessions++
	}
	w.session = ss
	if slices.Contains(ss.joined, m) {
		m.s.fail("member %d joins session %x twice", m.i, r.Session[:4])
	}
	if !ss.failed && !ss.done {
		ss.joined, ss.lives = append(ss.joined, m), append(ss.lives, m.life)
	}
}

// request is what this member, by itself, believes is to be signed.
func (m *member) request(b ledger.Batch, a ledger.Attempt, at inputKey, turn uint64, committee []ledger.MemberID) (tss.Request, error) {
	in, spends, err := m.inputs(b, a)
	if err != nil {
		return tss.Request{}, err
	}
	if b.Kind == ledger.BatchPay && !m.liar && !m.s.cfg.mistakes.fenceless {
		f := m.fences[b.Chain]
		if f == nil {
			f = new(node.Fence)
			m.fences[b.Chain] = f
		}
		if err := f.Check(ctx, m.state, b.Chain, m.s.chain(b.Chain), spends, m.seen[b.Chain]); err != nil {
			return tss.Request{}, err
		}
	}
	r := tss.Request{
		Cluster: m.state.Cluster, Kind: tss.Sign, Key: keyOf(b.Key), Epoch: a.Epoch, Try: a.Try,
		Staged: b.Kind == ledger.BatchTest, At: a.At, Batch: b.ID, Attempt: a.K,
		Input: uint16(at.input), Turn: uint16(turn), Digest: in[at.input].Digest[:],
	}
	for _, id := range committee {
		r.Parties = append(r.Parties, tss.PartyID(id))
	}
	if b.Kind == ledger.BatchPay {
		k, _ := m.state.Keys.Get(b.Key)
		child, err := address.Derive(address.KeyECDSA, k.ID, k.Pub, in[at.input].Path)
		if err != nil {
			return r, err
		}
		r.Tweak = child.Delta
	}
	r.Session = tss.SessionName(r)
	return r, nil
}

// inputs builds the transaction from the member's own ledger, reads the bytes
// back and asks VerifySpend.
func (m *member) inputs(b ledger.Batch, a ledger.Attempt) (inputs []chains.ToSign, spends []string, err error) {
	if b.Kind == ledger.BatchTest {
		return []chains.ToSign{{Digest: b.Digest}}, nil, nil
	}
	c := m.s.chain(b.Chain)
	u, err := c.Build(a)
	if err != nil {
		return nil, nil, err
	}
	spends, pays, err := c.Reads(u)
	if err != nil {
		return nil, nil, err
	}
	if err := m.state.VerifySpend(b.ID, a.K, spends, pays); err != nil && !m.s.cfg.mistakes.blind {
		return nil, nil, fmt.Errorf("verify spend: %w", err)
	}
	return u.Inputs, spends, nil
}

func keyOf(id string) tss.KeyID {
	if id == ledger.KeyEd255191 {
		return tss.KeyID{ID: id, Curve: tss.Ed25519}
	}
	return tss.KeyID{ID: id, Curve: tss.Secp256k1}
}

// runSessions moves every session on by a step.
func (s *sim) runSessions() {
	s.open = slices.DeleteFunc(s.open, func(ss *session) bool {
		s.advance(ss)
		return ss.failed || ss.done
	})
}

func (s *sim) advance(ss *session) {
	for i, m := range ss.joined {
		if !m.up || m.life != ss.lives[i] {
			ss.blamed = append(ss.blamed, m.id)
		}
	}
	if len(ss.blamed) > 0 {
		ss.failed = true
		s.rep.Aborted++
		return
	}
	if len(ss.joined) < len(ss.req.Parties) {
		if s.step-ss.begun > joinSteps {
			for _, p := range ss.req.Parties {
				if !slices.ContainsFunc(ss.joined, func(m *member) bool { return m.id == ledger.MemberID(p) }) {
					ss.blamed = append(ss.blamed, ledger.MemberID(p))
				}
			}
			ss.failed = true
			s.rep.Aborted++
		}
		return
	}
	if ss.ends == 0 {
		ss.ends = s.step + s.between(1, 4)
		for _, m := range ss.joined {
			s.reached(pointJoined, m, ss.key.batch)
		}
		if !s.rest {
			fates := []fate{fateAll, fateAll, fateAll, fateAll, fateAll, fateAll, fateAll, fateOne, fateKilled, fateSilent, fateAborted, fateAborted, fateDies}
			ss.fate = fates[s.rng.IntN(len(fates))]
			if slices.ContainsFunc(ss.joined, func(m *member) bool { return m.liar }) && s.cfg.at == nil && s.chance(25) {
				ss.fate = fateSpoilt
			}
		}
	}
	if s.step >= ss.ends {
		s.finish(ss)
	}
}

// finish is the last round. The dealer signs, for m members stood here, each
// with the same request of its own making.
func (s *sim) finish(ss *session) {
	lucky := ss.joined[s.rng.IntN(len(ss.joined))]
	switch {
	case ss.fate == fateAborted:
		ss.failed = true
		s.rep.Aborted++
		return
	case ss.fate == fateSpoilt && !s.rest:
		s.spoil(ss)
		return
	case ss.fate == fateDies && !s.rest:
		ss.failed, ss.blamed = true, []ledger.MemberID{lucky.id}
		s.rep.Aborted++
		lucky.kill()
		return
	}
	sig := signature{ss.key, s.dealer.sign(ss.req)}
	s.rep.Signatures++
	if s.world.variants[ss.key]++; s.world.variants[ss.key] == 2 {
		s.rep.Variants++
	}
	ss.done = true
	if s.reached(pointSigned, lucky, ss.key.batch) {
		return
	}
	if s.cfg.at != nil {
		lucky.keep(sig)
		if s.reached(pointStored, lucky, ss.key.batch) {
			return
		}
	}
	switch {
	case ss.fate == fateKilled && !s.rest:
		lucky.kill()
	case ss.fate == fateSilent && !s.rest:
		lucky.disk.store(sig)
		lucky.kill()
	case ss.fate == fateOne && !s.rest:
		lucky.keep(sig)
	default:
		for _, m := range ss.joined {
			if m.up {
				m.keep(sig)
			}
		}
	}
}

// spoil fails a session by a traitor's bad message. The honest party that saw it
// shows it, and whoever it reaches judges it as package node does.
func (s *sim) spoil(ss *session) {
	liar := ss.joined[slices.IndexFunc(ss.joined, func(m *member) bool { return m.liar })]
	ss.failed, ss.blamed = true, []ledger.MemberID{liar.id}
	s.rep.Aborted++
	s.rep.Spoilt++
	if !slices.ContainsFunc(ss.joined, func(m *member) bool { return m.up && !m.liar }) {
		return
	}
	f := ledger.Blame{
		Member: liar.id, Evidence: ledger.Hash(ss.req.Session), Session: ledger.Hash(ss.req.Session), Round: 1, Check: "S1", Batch: ss.req.Batch, Attempt: ss.req.Attempt,
	}
	for _, m := range s.members {
		if m.up && !m.liar && !s.trouble(20) {
			m.proven = append(m.proven[max(0, len(m.proven)-15):], f)
		}
	}
}

// store keeps the first signature of an input: any one settles it.
func (d *disk) store(sig signature) bool {
	_, known := d.sigs[sig.inputKey]
	if !known {
		d.sigs[sig.inputKey], d.signed = sig, append(d.signed, sig.inputKey)
	}
	return !known
}

// keep stores a signature and tells it to all.
func (m *member) keep(sig signature) {
	if m.disk.store(sig) {
		m.tell(sig)
	}
}

func (m *member) tell(sig signature) {
	sh := &share{signature: sig}
	for _, o := range m.s.members {
		if o != m {
			sh.todo = append(sh.todo, o)
		}
	}
	m.unshared = append(m.unshared, sh)
}

func (m *member) share() {
	m.unshared = slices.DeleteFunc(m.unshared, func(sh *share) bool {
		if b, ok := m.state.Batches.Get(sh.batch); ok && b.Done {
			return true
		}
		sh.todo = slices.DeleteFunc(sh.todo, func(o *member) bool {
			return o.up && !m.s.trouble(50) && o.takeSignature(sh.signature)
		})
		return len(sh.todo) == 0
	})
}

// takeSignature verifies a signature against what this member's own ledger
// plans.
func (m *member) takeSignature(sig signature) bool {
	if _, ok := m.disk.sigs[sig.inputKey]; ok {
		return true
	}
	b, ok := m.state.Batches.Get(sig.batch)
	if !ok {
		return false
	}
	if b.Done || sig.variant != 0 {
		return true
	}
	a, ok := b.Body(sig.body)
	if !ok {
		return false
	}
	curve, digest, pub := ledger.CurveSecp256k1, b.Digest, []byte(nil)
	if b.Kind == ledger.BatchTest {
		if b.Key == ledger.KeyEd255191 {
			curve = ledger.CurveEd25519
		}
		if pub = m.testKey(b); pub == nil {
			return false
		}
	} else {
		u, err := m.s.chain(b.Chain).Build(a)
		if err != nil {
			m.s.fail("build of batch %d: %w", b.ID, err)
			return true
		}
		digest, pub = u.Inputs[sig.input].Digest, u.Inputs[sig.input].Pub
	}
	if !ledger.VerifyKey(curve, pub, digest, sig.sig.Bytes()) {
		m.s.fail("member %d: signature of batch %d input %d does not verify", m.i, sig.batch, sig.input)
	}
	m.disk.store(sig)
	return true
}

// testKey is the key that a test signature shows: of the next epoch, or of the
// one in force, whose tests may be open while a next one is planned.
func (m *member) testKey(b ledger.Batch) []byte {
	if m.state.Next != nil {
		for _, k := range m.state.Next.Keys {
			if slices.Contains(k.Tests, b.ID) {
				return k.Pub
			}
		}
	}
	k, _ := m.state.Keys.Get(b.Key)
	return k.Pub
}

// broadcast sends what this member holds signatures for, again and again, until
// the anchor is attested spent.
func (m *member) broadcast() {
	if !m.s.chance(20) {
		return
	}
	for _, b := range node.PlanBroadcasts(m.state) {
		for _, a := range b.Attempts {
			if !m.up {
				return
			}
			m.sendTx(b, a, 0)
			if build := m.s.cfg.mistakes.build; build != nil { // whoever signs it sends it
				if other, ok := build(m, b, a); ok {
					m.sendTx(b, other, a.K+1)
				}
			}
		}
	}
}

func (m *member) sendTx(b ledger.Batch, a ledger.Attempt, variant uint64) {
	c := m.s.chain(b.Chain)
	k := inputKey{batch: b.ID, body: a.Body, variant: variant}
	raw, ok := m.raws[k]
	if !ok {
		var sigs []chains.Signature
		for i := range inputsOf(a) {
			s, ok := m.disk.sigs[inputKey{b.ID, a.Body, variant, i}]
			if !ok {
				return
			}
			sigs = append(sigs, chains.Signature{R: s.sig.R, S: s.sig.S, RecID: s.sig.RecID})
		}
		u, err := c.Build(a)
		if err == nil {
			raw, err = c.Finish(u, sigs)
		}
		if err != nil {
			if variant == 0 { // a planted one may have been planned anew
				m.s.fail("member %d finishes batch %d: %w", m.i, b.ID, err)
			}
			return
		}
		m.raws[k] = raw
		m.s.world.hoard(b.Chain, raw.Bytes)
	}
	if m.s.trouble(25) {
		return // the endpoint could not be reached
	}
	m.s.rep.Broadcasts++
	err := c.Broadcast(ctx, raw.Bytes)
	if err == nil && m.s.reached(pointSent, m, b.ID) {
		return
	}
	if m.s.trouble(25) {
		err = chains.ErrTransport // accepted, and the answer lost
	}
	// A sweep is planned when its gas is mined, and a reorganisation may take
	// the gas away for a while. For all else a refusal is an alarm.
	if o, _ := m.state.Outflows.Get(b.Outflows[0]); errors.Is(err, chains.ErrRefused) && variant == 0 && o.Kind != ledger.OutflowSweep {
		m.s.fail("member %d: batch %d refused: %w", m.i, b.ID, err)
	}
}
