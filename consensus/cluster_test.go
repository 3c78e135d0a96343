package consensus

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/coffer-network/coffer/consensus/malice"
	"github.com/coffer-network/coffer/ledger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Started by packages of Badger's, once per process.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// toyRoots is toy's ledger.RootInterval.
const toyRoots = 64

// toy is an App over a list of texts. "bad …" is refused, "plan …" plans an
// attempt, "open" opens toy.next, "flip" puts it in force, "flip HEX" does so if
// that is the flip certificate. "borrow X" and "withdraw X" plan one too, and each
// is refused after the other: X is the collateral.
type toy struct {
	mu sync.Mutex
	s  toyState

	cluster    ledger.Hash
	openedHead ledger.Hash // not in the state: toy's flips do not cross a snapshot
	next       ledger.Epoch
	gate       atomic.Pointer[chan struct{}] // if set, Apply waits for it
	adopted    func()                        // under mu; if set, Adopt calls it
}

// hold makes Apply wait until the returned function is called.
func (a *toy) hold() (release func()) {
	gate := make(chan struct{})
	a.gate.Store(&gate)
	return func() { close(gate) }
}

type toyState struct {
	Height    uint64       `cbor:"1,keyasint"`
	Head      ledger.Hash  `cbor:"2,keyasint"`
	Texts     []string     `cbor:"3,keyasint"`
	Epoch     ledger.Epoch `cbor:"4,keyasint"`
	OpenedAt  uint64       `cbor:"5,keyasint"`
	PlannedAt uint64       `cbor:"6,keyasint"`
	Next      ledger.Epoch `cbor:"7,keyasint"`
	Plans     []toyPlan    `cbor:"8,keyasint"`

	Epochs []ledger.Epoch       `cbor:"9,keyasint"` // in force before Epoch
	Flips  []ledger.Certificate `cbor:"10,keyasint"`
	Millis uint64               `cbor:"11,keyasint"` // by "clock MS"

	Followers []ledger.MemberID `cbor:"12,keyasint"` // by "admit KEY", until "drop KEY"
}

type toyPlan struct {
	Height uint64 `cbor:"1,keyasint"`
	Text   string `cbor:"2,keyasint"`
}

func (s *toyState) planned(text string) bool {
	return slices.ContainsFunc(s.Plans, func(p toyPlan) bool { return p.Text == text })
}

// certOf reads the argument of a "flip".
func certOf(arg string) (cert ledger.Certificate, err error) {
	b, err := hex.DecodeString(arg)
	if err == nil {
		err = ledger.Unmarshal(b, &cert)
	}
	return cert, err
}

// flips reports whether a "flip" may put the opened epoch in force: with a
// certificate it has to be the one that ledger.State would ask for.
func (a *toy) flips(arg string) bool {
	if arg == "" {
		return true
	}
	cert, err := certOf(arg)
	if err != nil || a.s.OpenedAt == 0 {
		return false
	}
	want := ledger.Approval{Cluster: a.cluster, Epoch: a.s.Epoch.Number, Height: a.s.OpenedAt, Head: a.openedHead,
		RootHeight: a.s.OpenedAt, Root: cert.Approval.Root, Members: a.s.Next.MembersHash()}
	return cert.Approval == want && cert.Verify(a.cluster, a.s.Epoch) == nil
}

func (a *toy) Check(tx []byte) (attestation bool, err error) {
	if len(tx) == 0 {
		return false, errors.New("empty")
	}
	return bytes.HasPrefix(tx, []byte("fact ")) || bytes.HasPrefix(tx, []byte("clock ")), nil
}

func (a *toy) Apply(txs [][]byte) (rs []Result) {
	if gate := a.gate.Load(); gate != nil {
		<-*gate
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, tx := range txs {
		s := &a.s
		s.Height++
		h := ledger.Header{Height: s.Height, Prev: s.Head, Command: sha256.Sum256(tx)}
		code := ledger.OK
		word, arg, _ := strings.Cut(string(tx), " ")
		switch {
		case len(tx) > MaxCommand || word == "bad":
			code = ledger.Malformed
		case word == "borrow" && s.planned("withdraw "+arg), word == "withdraw" && s.planned("borrow "+arg):
			code = ledger.NotAllowed
		case word == "plan" || word == "borrow" || word == "withdraw":
			s.PlannedAt = s.Height
			s.Plans = append(s.Plans, toyPlan{s.Height, string(tx)})
		case word == "open":
			s.OpenedAt, s.Next = s.Height, a.next
			h.Root = sha256.Sum256(ledger.Marshal(s))
		case word == "clock":
			ms, _ := strconv.ParseUint(arg, 10, 64)
			s.Millis = max(s.Millis, ms)
		case word == "admit":
			s.Followers = append(s.Followers, keyed(arg))
		case word == "drop":
			s.Followers = slices.DeleteFunc(slices.Clone(s.Followers), func(m ledger.MemberID) bool { return m == keyed(arg) })
		case word == "flip" && !a.flips(arg):
			code = ledger.BadSignature
		case word == "flip":
			cert, _ := certOf(arg)
			s.Epochs, s.Flips = append(s.Epochs, s.Epoch), append(s.Flips, cert)
			s.Epoch, s.OpenedAt, s.Next = s.Next, 0, ledger.Epoch{}
			s.Followers = slices.DeleteFunc(slices.Clone(s.Followers), s.Epoch.Has)
		}
		if code == ledger.OK {
			s.Texts = append(s.Texts, string(tx))
		}
		if s.Height%toyRoots == 0 {
			h.Root = sha256.Sum256(ledger.Marshal(s))
		}
		h.Result = sha256.Sum256([]byte(code))
		s.Head = h.Head()
		if word == "open" && code == ledger.OK {
			a.openedHead = s.Head
		}
		rs = append(rs, Result{Header: h, Code: code})
	}
	return rs
}

func (a *toy) View() View {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := View{Height: a.s.Height, Head: a.s.Head, Epoch: a.s.Epoch, PlannedAt: a.s.PlannedAt, Millis: a.s.Millis, Followers: a.s.Followers}
	if a.s.OpenedAt != 0 {
		v.Opened = &Opened{Height: a.s.OpenedAt, Epoch: a.s.Next}
	}
	return v
}

type toyBytes []byte

func (b toyBytes) Encode(w io.Writer) error {
	_, err := w.Write(b)
	return err
}

func (a *toy) Snapshot() (Snapshot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return toyBytes(ledger.Marshal(a.s)), nil
}

type toyBody struct {
	s toyState
	a *toy
}

func (b toyBody) Height() uint64    { return b.s.Height }
func (b toyBody) Head() ledger.Hash { return b.s.Head }
func (b toyBody) Epochs() ([]ledger.Epoch, []ledger.Certificate) {
	return append(slices.Clone(b.s.Epochs), b.s.Epoch), b.s.Flips
}
func (b toyBody) Adopt() {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	b.a.s = b.s
	if b.a.adopted != nil {
		b.a.adopted()
	}
}

func (a *toy) Decode(r io.Reader) (Body, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var s toyState
	if err := ledger.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	return toyBody{s, a}, nil
}

func (a *toy) texts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.s.Texts)
}

// keystore is the part of a node that a lost raft directory does not take along.
type keystore struct {
	mu            sync.Mutex
	promise, mark []byte
	fail          error
}

func (k *keystore) LastPromise() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.promise, nil
}
func (k *keystore) LastRaftMark() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mark, nil
}
func (k *keystore) SavePromise(b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.promise = b
	return k.fail
}
func (k *keystore) SaveRaftMark(b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mark = b
	return k.fail
}

func (k *keystore) promised(t testing.TB) Promise {
	t.Helper()
	b, _ := k.LastPromise()
	p, err := DecodePromise(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type member struct {
	arrived func(txs [][]byte) // told of commands; nil: nobody
	*Consensus
	n    int
	id   ledger.MemberID
	key  ed25519.PrivateKey
	dir  string
	log  Store
	keys *keystore
	app  *toy
	net  *raft.InmemTransport
	liar *malice.Liar              // between raft and net; honest without rules
	live atomic.Pointer[Consensus] // nil: down
	cut  atomic.Bool               // from everybody else
	lost atomic.Bool               // it forgot its votes

	checkpoints []Checkpoint

	mu   sync.Mutex
	may  func(ledger.Approval) ([]byte, error)
	hear func(reply []byte) []byte // what becomes of the leader's replies
	sent []ledger.Approval         // what left this node, in order
}

func (m *member) up() bool { return m.live.Load() != nil }

// judge sets what MayApprove says.
func (m *member) judge(verdict string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.may = func(ledger.Approval) ([]byte, error) { return []byte(verdict), err }
}

func (m *member) mayApprove(a ledger.Approval) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.may(a)
}

type cluster struct {
	t        testing.TB
	id       ledger.Hash
	epoch    ledger.Epoch
	members  []*member
	settings Settings
	off      ablation
	court    *court // nil: nobody is a traitor
	quiet    *slog.Logger
}

// memoryLog is raft's store in memory, without its fault that deleting from 0 makes
// the last index 2⁶⁴−1. Raft does so where it found the log empty, after an installed
// snapshot, whatever was stored meanwhile. raftlog deletes from its first entry.
type memoryLog struct{ *raft.InmemStore }

func newMemoryLog() memoryLog { return memoryLog{raft.NewInmemStore()} }

func (l memoryLog) DeleteRange(from, to uint64) error {
	first, err := l.FirstIndex()
	if from = max(from, first); err != nil || first == 0 || from > to {
		return err
	}
	return l.InmemStore.DeleteRange(from, to)
}

func seedKey(i int) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "member %d", i))
	return ed25519.NewKeyFromSeed(seed[:])
}

// keyed is the member of seedKey with that number.
func keyed(number string) ledger.MemberID {
	i, _ := strconv.Atoi(number)
	return ledger.MemberID(seedKey(i).Public().(ed25519.PublicKey))
}

func epochOf(number uint64, keys ...int) ledger.Epoch {
	e := ledger.Epoch{Number: number, M: 2}
	for _, i := range keys {
		e.Members = append(e.Members, ledger.Member{ID: ledger.MemberID(seedKey(i).Public().(ed25519.PublicKey)), Name: fmt.Sprint("m", i), Operator: fmt.Sprint("o", i)})
	}
	slices.SortFunc(e.Members, func(a, b ledger.Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	e.F = (len(keys) - 1) / 3
	e.FactQuorum = e.N() - e.C()
	return e
}

// newCluster makes n members that are not started yet. With n = 4, f = 1, Q = 3.
func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, id: sha256.Sum256([]byte(t.Name())), quiet: slog.New(slog.DiscardHandler)}
	if os.Getenv("CONSENSUS_LOG") != "" {
		c.quiet = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	keys := make([]int, n)
	for i := range keys {
		keys[i] = i
	}
	c.epoch = epochOf(0, keys...)
	for i := range keys {
		c.newMember(i)
	}
	return c
}

// newMember adds a node that is not started yet; beyond the genesis it holds no seat.
func (c *cluster) newMember(i int) *member {
	key := seedKey(i)
	m := &member{n: i, id: ledger.MemberID(key.Public().(ed25519.PublicKey)), key: key, dir: c.t.TempDir(),
		log: newMemoryLog(), keys: &keystore{}}
	m.judge("", nil)
	c.members = append(c.members, m)
	return m
}

func address(m ledger.MemberID) string { return "addr-" + m.String()[:8] }

// Forward and Broadcast are the network between members.
type wire struct {
	c *cluster
	m *member
}

func (c *cluster) find(id ledger.MemberID) *member {
	for _, m := range c.members {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (c *cluster) linked(a, b *member) bool {
	return b.up() && (a == b || !a.cut.Load() && !b.cut.Load())
}

func (w wire) Forward(ctx context.Context, leader ledger.MemberID, request []byte) ([]byte, error) {
	to := w.c.find(leader)
	if to == nil || !w.c.linked(w.m, to) {
		return nil, errors.New("not connected")
	}
	live := to.live.Load()
	if live == nil {
		return nil, errors.New("not connected")
	}
	if k := w.c.court; k != nil && k.censored(to, request) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	b := live.HandleForward(ctx, w.m.id, request)
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.hear != nil {
		b = w.m.hear(b)
	}
	return b, nil
}

func (w wire) Broadcast(kind uint8, body []byte) {
	switch kind {
	case GossipComplaint:
		w.complain(body)
		return
	case GossipAccount:
		w.testify(body)
		return
	}
	var s signedApproval
	if err := ledger.Unmarshal(body, &s); err != nil || kind != GossipApproval {
		w.c.t.Errorf("broadcast %d: %v", kind, err)
	}
	// The rule the whole claim rests on: disk before wire.
	if p := w.m.keys.promised(w.c.t); p.Height < s.Approval.Height || p.Height == s.Approval.Height && p.Head != s.Approval.Head {
		w.c.t.Errorf("member %d sent an approval of %d above its promise of %d", w.m.n, s.Approval.Height, p.Height)
	}
	w.m.mu.Lock()
	if n := len(w.m.sent); n == 0 || w.m.sent[n-1] != s.Approval {
		w.m.sent = append(w.m.sent, s.Approval)
	}
	w.m.mu.Unlock()
	if w.c.court != nil && !w.c.court.heard(w.m, s.Approval) {
		return
	}
	for _, to := range w.c.members {
		if live := to.live.Load(); live != nil && to != w.m && w.c.linked(w.m, to) {
			_ = live.HandleApproval(w.m.id, body)
		}
	}
}

func (w wire) complain(body []byte) {
	k := w.c.court
	if k != nil && k.traitor(w.m) {
		return // says what its test says
	}
	for _, to := range w.c.members {
		if k != nil && k.traitor(to) {
			continue // does not hand over when it hears
		}
		if live := to.live.Load(); live != nil && to != w.m && w.c.linked(w.m, to) {
			if err := live.HandleComplaint(w.m.id, body); err != nil {
				w.c.t.Errorf("complaint of member %d at %d: %v", w.m.n, to.n, err)
			}
		}
	}
}

// testify carries accounts among the honest. Where there are traitors it does so only
// if the test is about that: what accounts lead to must not be what keeps heads apart.
func (w wire) testify(body []byte) {
	k := w.c.court
	if len(body) > maxAccount {
		w.c.t.Errorf("account of %d bytes", len(body))
	}
	if k != nil && (!k.testify.Load() || k.traitor(w.m)) {
		return
	}
	for _, to := range w.c.members {
		if live := to.live.Load(); live != nil && to != w.m && w.c.linked(w.m, to) {
			if err := live.HandleAccount(w.m.id, body); err != nil && !errors.Is(err, errNotMember) { // as around a flip
				w.c.t.Errorf("account of member %d at %d: %v", w.m.n, to.n, err)
			}
		}
	}
}

// signsSlot puts m's signature into an entry, as the leader of a term.
func (c *cluster) signsSlot(m *member, term uint64, e *raft.Log) {
	sig := SignSlot(m.key, SlotOf(c.id, m.id, term, e)).Sig
	e.Extensions = sig[:]
}

func (w wire) alive(id ledger.MemberID) bool {
	m := w.c.find(id)
	return m != nil && w.c.linked(w.m, m)
}

func (m *member) approved() []ledger.Approval {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sent)
}

func (c *cluster) start(ms ...*member) {
	c.t.Helper()
	for _, m := range ms {
		if err := c.tryStart(m); err != nil {
			c.t.Fatalf("start member %d: %v", m.n, err)
		}
	}
}

func (c *cluster) tryStart(m *member) error {
	_, m.net = raft.NewInmemTransport(raft.ServerAddress(address(m.id)))
	m.liar = &malice.Liar{Transport: m.net, Sign: func(term uint64, e *malice.Entry) { c.signsSlot(m, term, e) }}
	m.app = &toy{cluster: c.id, s: toyState{Head: c.id, Epoch: c.epoch}, next: epochOf(1, 0, 1, 2, 4)}
	var genesis []ledger.MemberID
	for _, s := range c.epoch.Members {
		genesis = append(genesis, s.ID)
	}
	w := wire{c, m}
	var err error
	m.Consensus, err = New(Config{
		Self: m.id, Cluster: c.id, Genesis: genesis, Dir: m.dir, App: m.app, Log: m.log,
		Checkpoints: m.checkpoints, Address: address, Transport: m.liar, Forwarder: w, Gossip: w, Promises: m.keys, Mark: m.keys,
		Sign:       func(a ledger.Approval) ledger.MemberSig { return ledger.SignApproval(m.key, a) },
		MayApprove: m.mayApprove, Arrived: m.arrived,
		SignSlot:      func(s Slot) ledger.MemberSig { return SignSlot(m.key, s) },
		SignComplaint: func(x Complaint) ledger.MemberSig { return SignComplaint(m.key, x) }, Alive: w.alive,

		MayVote:  func() bool { return !m.lost.Load() },
		Settings: c.settings, Logger: c.quiet.With("member", m.n), off: c.off,
	})
	if err != nil {
		return err
	}
	m.live.Store(m.Consensus)
	c.connect()
	return nil
}

// connect links the raft transports as the members are up and cut.
func (c *cluster) connect() {
	for _, a := range c.members {
		if a.net == nil || !a.up() {
			continue
		}
		a.net.DisconnectAll()
		for _, b := range c.members {
			if b.net != nil && c.linked(a, b) {
				a.net.Connect(raft.ServerAddress(address(b.id)), b.net)
			}
		}
	}
}

func (c *cluster) cut(m *member, yes bool) {
	m.cut.Store(yes)
	c.connect()
}

// stop takes m off at once: nothing it says afterwards reaches anybody.
func (c *cluster) stop(ms ...*member) {
	for _, m := range ms {
		if m.up() {
			m.live.Store(nil)
			m.cut.Store(true)
			c.connect()
			m.net.DisconnectAll()
			m.Close()
			m.cut.Store(false)
		}
	}
}

func (c *cluster) stopAll() { c.stop(c.members...) }

func (c *cluster) others(not *member) (ms []*member) {
	for _, m := range c.members {
		if m != not {
			ms = append(ms, m)
		}
	}
	return ms
}

// within bounds every wait of a test, in virtual time.
const within = 5 * time.Minute

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// leader waits until one of ms leads.
func (c *cluster) leader(ms ...*member) (leader *member) {
	c.t.Helper()
	if len(ms) == 0 {
		ms = c.members
	}
	c.eventually("a leader", func() bool {
		i := slices.IndexFunc(ms, func(m *member) bool { return m.up() && m.Leading() })
		if i >= 0 {
			leader = ms[i]
		}
		return i >= 0
	})
	return leader
}

func (c *cluster) follower() *member {
	l := c.leader()
	f := c.members[0]
	if f == l {
		f = c.members[1]
	}
	c.eventually("follower knows the leader", func() bool { id, ok := f.Leader(); return ok && id == l.id })
	return f
}

// submit retries as a client does: the same bytes.
func (c *cluster) submit(m *member, tx string) (r Receipt) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	c.eventually("submit "+tx, func() bool {
		var err error
		r, err = m.Submit(ctx, []byte(tx))
		if err != nil && !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrTimeout) {
			c.t.Fatalf("submit %q: %v", tx, err)
		}
		return err == nil
	})
	return r
}

// agree waits until ms are at the same height, at least at height, and compares them.
func (c *cluster) agree(height uint64, ms ...*member) {
	c.t.Helper()
	for _, m := range ms {
		c.eventually(fmt.Sprintf("member %d at height %d", m.n, height), func() bool { return m.Height() >= height })
	}
	want, err := ms[0].Head(height)
	for _, m := range ms {
		got, err1 := m.Head(height)
		if err = errors.Join(err, err1); err != nil || got != want {
			c.t.Fatalf("member %d: head %s at height %d, member %d: %s (%v)", m.n, got, height, ms[0].n, want, err)
		}
		if err := m.Descends(0, c.id, height); err != nil {
			c.t.Fatalf("member %d: %v", m.n, err)
		}
	}
}

// virtual runs a test of n members in virtual time.
func virtual(t *testing.T, n int, settings Settings, test func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, n)
		c.settings = settings
		defer c.stopAll()
		test(t, c)
	})
}

func hashOf(tx string) ledger.Hash { return sha256.Sum256([]byte(tx)) }
