package tss

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coffer-network/coffer/tss/child"
	"github.com/coffer-network/coffer/tss/keystore"
)

// Transport carries frames between members. Frames to one member should arrive
// in order; one that Send refused is sent again by the caller. Frames and lost
// connections come in through Signer.Receive and Signer.Disconnected.
type Transport interface {
	Send(ctx context.Context, to PartyID, frame []byte) error
}

// JoinSeen tells of a valid Join for a session that this node is not in.
type JoinSeen struct {
	From    PartyID
	Session SessionID
	Epoch   uint64
	Batch   uint64
	Attempt uint64
	Input   uint16
	Turn    uint16
}

// Config of a Signer. Zero values of the durations and limits mean the
// defaults.
type Config struct {
	Identity  ed25519.PrivateKey // of this node; its public key is its PartyID
	Cluster   [32]byte
	Keystore  *keystore.Keystore
	Transport Transport
	// Member says whether a peer is a member; nil: the transport lets no
	// others through.
	Member func(PartyID) bool
	// OnJoin may be nil. It runs on the transport's goroutine and must not
	// block.
	OnJoin func(JoinSeen)
	Log    *slog.Logger // nil: discard

	JoinWait       time.Duration // 700 ms: all must have joined a signature
	KeygenJoinWait time.Duration // 30 s: all n members, started by hand perhaps
	SilenceMin     time.Duration // 3 s: least time a connected party may be mute
	MaxSessions    int           // 256 at once; beyond it ErrBusy
	Processors     int           // computing at once; GOMAXPROCS
	MaxChildren    int           // 64 child processes at once; sessions beyond it wait

	// InProcess runs the library in this process, which a peer's message that
	// slips through the guard then ends. For unit tests and measurement.
	InProcess bool

	childArgs []string // a test's own
}

// Stats counts frames since start.
type Stats struct {
	Refused uint64 // failed a check
	Unknown uint64 // for no session of this node (E8)

	Children child.Stats // the processes that sessions run in
}

// Signer runs the sessions of one node.
type Signer struct {
	cfg  Config
	self PartyID
	log  *slog.Logger
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	children *child.Pool // nil: InProcess
	places   *cpuQueue   // for children

	ecdsaCPU, eddsaCPU *cpuQueue
	refusedN, unknownN atomic.Uint64

	mu       sync.Mutex
	sessions map[SessionID]*session
	early    map[SessionID]map[PartyID]earlyJoin
	rounds   []time.Duration // the last ones, for the limit of silence
	closed   bool

	// tamper lets a test send what no honest party sends.
	tamper atomic.Pointer[func(outgoing) []byte]
}

// earlyJoin is a Join that came before this node's own.
type earlyJoin struct {
	f  *frame
	at time.Time
}

const (
	defaultJoinWait       = 700 * time.Millisecond
	defaultKeygenJoinWait = 30 * time.Second
	defaultSilenceMin     = 3 * time.Second
	defaultMaxSessions    = 256
	// defaultMaxChildren bounds memory: a child that signs holds about 20 MiB of
	// its own.
	defaultMaxChildren = 64
	// warmChildren are kept ready, so that a session does not wait for a start.
	warmChildren = 2

	// earlyLife is how long a Join waits for this node: a peer repeats it
	// every joinResend while it matters.
	earlyLife = 5 * time.Second
	// maxEarly bounds remembered Joins per sender, at 0.3 KiB each.
	maxEarly = 512
	// roundsKept and silenceFactor: a mute party is suspected after ten times
	// the median of the last twenty rounds (spec: signing §10).
	roundsKept    = 20
	silenceFactor = 10
)

// New returns a Signer. Close ends it.
func New(cfg Config) (*Signer, error) {
	if len(cfg.Identity) != ed25519.PrivateKeySize {
		return nil, errors.New("new signer: no identity key")
	}
	if cfg.Keystore == nil || cfg.Transport == nil {
		return nil, errors.New("new signer: no keystore or no transport")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.JoinWait, defaultJoinWait)
	def(&cfg.KeygenJoinWait, defaultKeygenJoinWait)
	def(&cfg.SilenceMin, defaultSilenceMin)
	if cfg.MaxSessions <= 0 {
		cfg.MaxSessions = defaultMaxSessions
	}
	if cfg.Processors <= 0 {
		cfg.Processors = runtime.GOMAXPROCS(0)
	}
	if cfg.MaxChildren <= 0 {
		cfg.MaxChildren = defaultMaxChildren
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var children *child.Pool
	if !cfg.InProcess {
		var err error
		if children, err = child.NewPool(child.Options{Warm: warmChildren, Args: cfg.childArgs}); err != nil {
			return nil, fmt.Errorf("new signer: %w", err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Signer{
		cfg: cfg, self: PartyID(cfg.Identity.Public().(ed25519.PublicKey)), log: cfg.Log,
		ctx: ctx, stop: stop,
		children: children, places: &cpuQueue{free: cfg.MaxChildren},
		ecdsaCPU: &cpuQueue{free: cfg.Processors},
		eddsaCPU: &cpuQueue{free: 4 * cfg.Processors},
		sessions: map[SessionID]*session{}, early: map[SessionID]map[PartyID]earlyJoin{},
	}, nil
}

// Close fails all sessions and returns when no goroutine of the Signer runs any
// more.
func (s *Signer) Close() {
	s.mu.Lock()
	s.closed = true
	live := s.liveLocked()
	s.mu.Unlock()
	for _, x := range live {
		x.fail(ErrClosed)
	}
	s.stop()
	s.wg.Wait()
	if s.children != nil {
		s.children.Close()
	}
}

// Stats returns the counters.
func (s *Signer) Stats() Stats {
	st := Stats{Refused: s.refusedN.Load(), Unknown: s.unknownN.Load()}
	if s.children != nil {
		st.Children = s.children.Stats()
	}
	return st
}

// Receive takes one frame that the transport heard from an authenticated peer.
// It returns quickly and may be called from several goroutines. An error is a
// *RefusedError, for the caller to count; the sender is told nothing.
func (s *Signer) Receive(from PartyID, raw []byte) error {
	err := s.receive(from, raw)
	if err != nil {
		s.refusedN.Add(1)
	}
	return err
}

func (s *Signer) receive(from PartyID, raw []byte) error {
	if s.cfg.Member != nil && !s.cfg.Member(from) {
		return refused("E2", "%s is no member", from)
	}
	f, err := openFrame(s.cfg.Cluster, &from, raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	x := s.sessions[f.env.Session]
	if x == nil && f.rule == ruleJoin && !s.closed && s.forUs(f) {
		s.rememberLocked(f)
	}
	s.mu.Unlock()
	if x != nil {
		return x.accept(f)
	}
	if f.rule != ruleJoin {
		s.unknownN.Add(1)
		return nil
	}
	if s.cfg.OnJoin != nil && s.forUs(f) {
		e := f.env
		s.cfg.OnJoin(JoinSeen{
			From: e.From, Session: e.Session, Epoch: e.Epoch,
			Batch: e.Batch, Attempt: e.Attempt, Input: e.Input, Turn: e.Turn,
		})
	}
	return nil
}

func (s *Signer) forUs(f *frame) bool { return slices.Equal(f.env.To, s.self[:]) }

// rememberLocked keeps a Join for the moment this node joins too.
func (s *Signer) rememberLocked(f *frame) {
	now := time.Now()
	n := 0
	for id, joins := range s.early {
		for p, j := range joins {
			if now.Sub(j.at) > earlyLife {
				delete(joins, p)
			} else if p == f.env.From {
				n++
			}
		}
		if len(joins) == 0 {
			delete(s.early, id)
		}
	}
	if n >= maxEarly {
		return
	}
	if s.early[f.env.Session] == nil {
		s.early[f.env.Session] = map[PartyID]earlyJoin{}
	}
	s.early[f.env.Session][f.env.From] = earlyJoin{f: f, at: now}
}

// Disconnected is told that the last connection to a peer is lost. Sessions
// that still need the peer fail at once.
func (s *Signer) Disconnected(peer PartyID) {
	s.mu.Lock()
	live := s.liveLocked()
	for _, joins := range s.early {
		delete(joins, peer)
	}
	s.mu.Unlock()
	for _, x := range live {
		x.lost(peer)
	}
}

func (s *Signer) liveLocked() []*session {
	var live []*session
	for _, x := range s.sessions {
		if x != nil { // nil: reserved, its joined line is being written
			live = append(live, x)
		}
	}
	return live
}

// session runs one session: the joined line first, then the exchange. It wipes
// the job.
func (s *Signer) session(ctx context.Context, p *protocol, j *job) (v any, x *session, err error) {
	r := j.Request
	j.Self = slices.Index(r.members(), s.self)
	if err := s.reserve(r.Session); err != nil {
		j.wipe()
		return nil, nil, err
	}
	// Fresh nonces must never meet old messages of a session: this is on disk
	// before the first message leaves.
	if err := s.cfg.Keystore.Join(r.Session, r.uses(s.self)); err != nil {
		s.release(r.Session, nil)
		j.wipe()
		return nil, nil, err
	}
	live := newSession(s, r, p, j.Self)
	x = live // the named result is written again on return; goroutines use live
	s.register(live)
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		v   any
		err error
	}
	done := make(chan result, 1)
	s.wg.Go(func() {
		defer cancel()
		defer j.wipe()
		v, err := live.run(ctx, j)
		done <- result{v, err}
	})
	defer func() {
		x.spread(err)
		s.release(r.Session, x)
	}()
	// Whoever fails the session need not wait for a computation under way; that
	// goroutine ends by itself.
	select {
	case res := <-done:
		return res.v, x, res.err
	case <-x.failed:
		cancel()
		return nil, x, x.failure()
	case <-ctx.Done():
		select {
		case res := <-done:
			return res.v, x, res.err
		default:
			x.fail(ctx.Err())
			return nil, x, ctx.Err()
		}
	}
}

// reserve claims a place among the live sessions.
func (s *Signer) reserve(id SessionID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if _, live := s.sessions[id]; live {
		return fmt.Errorf("session %s: %w", id, ErrJoined)
	}
	if len(s.sessions) >= s.cfg.MaxSessions {
		return fmt.Errorf("%w: %d", ErrBusy, len(s.sessions))
	}
	s.sessions[id] = nil
	s.wg.Add(1) // Close waits for release
	return nil
}

// register makes a session reachable and gives it the Joins that came early.
func (s *Signer) register(x *session) {
	s.mu.Lock()
	early := s.early[x.r.Session]
	delete(s.early, x.r.Session)
	s.sessions[x.r.Session] = x
	closed := s.closed
	s.mu.Unlock()
	if closed {
		x.fail(ErrClosed)
	}
	for _, j := range early {
		if err := x.accept(j.f); err != nil {
			s.refusedN.Add(1)
		}
	}
}

func (s *Signer) release(id SessionID, x *session) {
	s.mu.Lock()
	delete(s.sessions, id)
	s.mu.Unlock()
	if x != nil {
		x.close()
	}
	s.wg.Done()
}

func (s *Signer) cpu(r Request) *cpuQueue {
	if r.Key.Curve == Ed25519 {
		return s.eddsaCPU
	}
	return s.ecdsaCPU
}

func (s *Signer) joinWait(k Kind) time.Duration {
	if k != Sign {
		return s.cfg.KeygenJoinWait
	}
	return s.cfg.JoinWait
}

func (s *Signer) stepTook(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rounds = append(s.rounds, d); len(s.rounds) > roundsKept {
		s.rounds = s.rounds[1:]
	}
}

// silence is how long a party may be mute. It grows with the number of live
// sessions: behind older ones a party waits for its processor, as we would. A
// keygen or resharing has its deadline alone: a party that verifies proofs is mute for as
// long as its machine takes.
func (s *Signer) silence(r Request) time.Duration {
	if r.Kind != Sign {
		return r.Deadline
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.cfg.SilenceMin
	if len(s.rounds) > 0 {
		sorted := slices.Sorted(slices.Values(s.rounds))
		limit = max(limit, silenceFactor*sorted[len(sorted)/2])
	}
	return limit * time.Duration(max(1, len(s.sessions)))
}

func (s *Signer) tampered(o outgoing) []byte {
	if f := s.tamper.Load(); f != nil {
		return (*f)(o)
	}
	return o.payload
}
