package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// App is the replicated state. It knows nothing of raft. Apply, View, Snapshot
// and Body.Adopt are called one at a time, on one goroutine or before New
// returns; Check and Decode at any time from any.
type App interface {
	// Check looks at a command before it enters the log: stateless and cheap.
	// Its error is a courtesy; Apply decides. An attestation is a member's
	// command, and waits in another queue than those of clients.
	Check(tx []byte) (attestation bool, err error)

	// Apply applies the commands in order and returns one result for each. It
	// never fails: bytes that are no command, of whatever length, are refused
	// with a code and fold into the chain all the same (spec: consensus §1).
	Apply(txs [][]byte) []Result

	// View describes the state after the last Apply or Adopt.
	View() View

	// Snapshot takes an immutable view of the state, to be encoded later beside
	// further calls of Apply.
	Snapshot() (Snapshot, error)

	// Decode reads what Snapshot.Encode wrote, checks it and touches no state.
	Decode(r io.Reader) (Body, error)
}

// Result is what Apply made of one command.
type Result struct {
	Header ledger.Header
	Code   ledger.Code
}

// View is what consensus must know of the state at one height.
type View struct {
	Height uint64
	Head   ledger.Hash
	Epoch  ledger.Epoch // in force: its members approve, its Q counts

	// Opened is the next epoch from the height that opened it until its flip
	// certificate is applied (spec: consensus R7).
	Opened *Opened

	// Followers are the nodes without a seat that get the log (ledger:
	// State.Followers): raft has them as non-voters.
	Followers []ledger.MemberID

	// PlannedAt is the last height that planned an outflow's attempt: it is
	// approved at once (spec: consensus §6.2).
	PlannedAt uint64

	// Millis is ledger time, Unix ms; 0 while it is not to be compared with
	// clocks. A leader under which it lags is complained of.
	Millis uint64
}

// Opened is an epoch that is not in force yet.
type Opened struct {
	Height uint64
	Epoch  ledger.Epoch
}

// Snapshot is a state that no longer changes.
type Snapshot interface {
	Encode(w io.Writer) error
}

// Body is a decoded state that Adopt puts in place of the present one.
type Body interface {
	Height() uint64
	Head() ledger.Hash
	// Epochs are all that were ever in force, from genesis, and for each but the
	// first the certificate that put it in force.
	Epochs() (epochs []ledger.Epoch, flips []ledger.Certificate)
	// Adopt is called when Vouched says already what it will of this state.
	Adopt()
}

// Store keeps raft's log, its term and its vote. Closing it is its owner's
// affair, after Close.
type Store interface {
	raft.LogStore
	raft.StableStore
}

// Forwarder carries one request of ours to the leader and brings its answer;
// there HandleForward makes the one from the other. It gives up with ctx. An
// *Overload of its own says that nothing was sent.
type Forwarder interface {
	Forward(ctx context.Context, leader ledger.MemberID, request []byte) (reply []byte, err error)
}

// Gossip sends body to every member, without waiting and without a promise that
// it arrives: what matters is sent again.
type Gossip interface {
	Broadcast(kind uint8, body []byte)
}

// GossipApproval is the kind of an approval; HandleApproval takes its bodies.
const GossipApproval uint8 = 1

// PromiseStore keeps the last promise outside raft's directory. SavePromise
// returns after fsync. LastPromise of a new store is nil, nil.
type PromiseStore interface {
	LastPromise() ([]byte, error)
	SavePromise(promise []byte) error
}

// MarkStore keeps how far raft's own store came, outside raft's directory, so
// that a lost or older one is noticed. SaveRaftMark returns after fsync.
// LastRaftMark of a new store is nil, nil.
type MarkStore interface {
	LastRaftMark() ([]byte, error)
	SaveRaftMark(mark []byte) error
}

// Config is everything a Consensus is made of.
type Config struct {
	Self    ledger.MemberID
	Cluster ledger.Hash       // genesis hash: H_0, and the cluster of approvals
	Genesis []ledger.MemberID // voters of an empty log, the same on every node
	Dir     string            // for the chain of heads and the snapshots
	App     App               // at genesis: height 0, head = Cluster
	Log     Store

	// Checkpoints are heads that the operator was told, at most MaxCheckpoints: until
	// the last is reached this node vouches for nothing.
	Checkpoints []Checkpoint

	Address   func(ledger.MemberID) string // a member's address for Stream
	Stream    raft.StreamLayer
	Transport raft.Transport // instead of Stream

	Forwarder Forwarder
	Gossip    Gossip
	Promises  PromiseStore
	Mark      MarkStore

	// Arrived, if given, is told of commands that entered this node's log, mostly
	// before they are committed: the App may prepare for them. It is told on a
	// goroutine of its own, one entry at a time, and misses what comes while it
	// is busy; some come twice, some are never committed.
	Arrived func(txs [][]byte)

	// Room, if given, is asked of each command of a client whether this node's disk
	// takes more: own is of a client here, others are what members forward to this
	// leader. An *Overload refuses. Attestations always pass, or a full disk would
	// stop time, and votes with it. It is called often and must not block.
	Room func(own bool) error

	// Sign signs an approval with the node's identity key.
	Sign func(ledger.Approval) ledger.MemberSig
	// MayVote, if given, says whether this replica takes part in raft's
	// elections. One whose keystore was restored does not: it forgot its vote and
	// which entries it acknowledged. What it is sent it stores and acknowledges
	// like any other.
	MayVote func() bool
	// MayApprove is asked before each approval: own clock, solvency, facts
	// (spec: consensus R3). What it returns is saved with the promise, before
	// the approval leaves (R5a's verdicts); DecodePromise gives it back.
	MayApprove func(ledger.Approval) (verdicts []byte, err error)

	// SignSlot signs what this node sends as leader, with its identity key.
	SignSlot func(Slot) ledger.MemberSig
	// SignComplaint signs a complaint with the node's identity key; without it
	// this node never complains. Alive tells whether a member was heard from
	// within the last second or so; without it only censorship is complained of.
	SignComplaint func(Complaint) ledger.MemberSig
	Alive         func(ledger.MemberID) bool

	Settings Settings // zero fields take DefaultSettings
	Logger   *slog.Logger

	off ablation
}

// Settings are raft's knobs that differ between machines (spec: consensus §2).
type Settings struct {
	HeartbeatTimeout   time.Duration
	ElectionTimeout    time.Duration
	LeaderLeaseTimeout time.Duration
	CommitTimeout      time.Duration
	SnapshotThreshold  uint64 // raft entries since the last snapshot
	SnapshotInterval   time.Duration
	TrailingLogs       uint64        // kept behind a snapshot for members briefly away
	VoterLagFor        time.Duration // for how long a new member must have been close behind before it votes
}

// DefaultSettings bear a machine that computes threshold signatures beside four
// nodes: an election for want of CPU costs more than a slower one for a kill.
var DefaultSettings = Settings{
	HeartbeatTimeout:   time.Second,
	ElectionTimeout:    time.Second,
	LeaderLeaseTimeout: 500 * time.Millisecond,
	CommitTimeout:      50 * time.Millisecond, // commits are told at once (teller)
	SnapshotThreshold:  16384,
	SnapshotInterval:   30 * time.Second,
	TrailingLogs:       10240,
	VoterLagFor:        voterLagFor,
}

func (s Settings) orDefault() Settings {
	d := DefaultSettings
	pick(&s.HeartbeatTimeout, d.HeartbeatTimeout)
	pick(&s.ElectionTimeout, max(d.ElectionTimeout, s.HeartbeatTimeout))
	pick(&s.LeaderLeaseTimeout, min(d.LeaderLeaseTimeout, s.HeartbeatTimeout))
	pick(&s.CommitTimeout, d.CommitTimeout)
	pick(&s.SnapshotThreshold, d.SnapshotThreshold)
	pick(&s.SnapshotInterval, d.SnapshotInterval)
	pick(&s.TrailingLogs, d.TrailingLogs)
	pick(&s.VoterLagFor, d.VoterLagFor)
	return s
}

func pick[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

var (
	// ErrNoLeader: nobody to order the command now; it was not accepted.
	ErrNoLeader = errors.New("no leader")
	// ErrTimeout: what became of the command is not known; send the same bytes again.
	ErrTimeout = errors.New("timed out, outcome unknown")
	// ErrOverloaded: not accepted for want of room; send it later. Each is an *Overload.
	ErrOverloaded = errors.New("overloaded")
	// ErrTooLarge: not accepted, a command above MaxCommand.
	ErrTooLarge = fmt.Errorf("command above %d bytes", MaxCommand)
	// ErrRefused: not accepted, App.Check said no.
	ErrRefused = errors.New("command refused")
	// ErrClosed: this node is shutting down.
	ErrClosed = errors.New("consensus closed")

	// ErrPromiseBroken stops the node for good: its own log no longer contains
	// the head it promised. Its seat must not approve again by itself.
	ErrPromiseBroken = errors.New("own log contradicts own promise")
	// ErrRaftBehind: the raft directory is older than this node's keystore says,
	// so it may have forgotten entries it acknowledged and votes it gave.
	ErrRaftBehind = errors.New("raft directory is lost or older than the keystore")
)

// Consensus is one node's part in the cluster.
type Consensus struct {
	cfg     Config
	log     *slog.Logger
	raft    *raft.Raft
	fence   *fence
	guard   *guardedLog
	chain   *chain
	snaps   *snapshots
	submits *submits
	reads   *coalescer
	teller  teller
	arrived arrivals
	pool    *pool
	grieve  *grievances
	witness *witness
	layer   *layer // nil: Config.Transport

	applying  atomic.Int64  // when the entry under way began, Unix ns; 0: none
	readyTerm atomic.Uint64 // the term in which this leader's Barrier came through

	genesis ledger.Epoch // that of height 0

	// unproven is the height of a state taken over from another member, until it
	// is proved (proven.go); 0: none.
	unproven atomic.Uint64

	mu      sync.Mutex
	at      applied
	changed chan struct{} // closed and replaced with at
	recent  [recentResults]recentResult

	promiseMu sync.Mutex
	promise   Promise
	wake      chan struct{} // for the approver

	ctx     context.Context
	cancel  context.CancelFunc
	spawnMu sync.Mutex
	wg      sync.WaitGroup
	once    sync.Once

	failOnce sync.Once
	failed   chan struct{}
	failure  error
}

// applied is what the last applied entry left, published as one.
type applied struct {
	View
	index       uint64 // raft's
	members     ledger.Hash
	openMembers ledger.Hash
	since       uint64 // first height seen under Epoch
	gone        []gone // lately; never changed in place
}

// New opens the store, restores the newest valid snapshot and joins the
// cluster. A node whose store is empty begins with the genesis members.
func New(cfg Config) (*Consensus, error) {
	if v := cfg.App.View(); v.Height != 0 || v.Head != cfg.Cluster {
		return nil, fmt.Errorf("start consensus: app begins at height %d, want genesis", v.Height)
	}
	cfg.Settings = cfg.Settings.orDefault()
	ctx, cancel := context.WithCancel(context.Background())
	c := &Consensus{
		cfg: cfg, log: cfg.Logger, ctx: ctx, cancel: cancel,
		changed: make(chan struct{}), failed: make(chan struct{}), wake: make(chan struct{}, 1),
		submits: newSubmits(), pool: newPool(), grieve: newGrievances(), witness: newWitness(), arrived: make(arrivals, maxArrived),
	}
	c.teller.busy = map[raft.ServerID]bool{}
	c.reads = &coalescer{verify: c.verifyLeader, spawn: c.spawn}
	if err := c.open(); err != nil {
		cancel()
		if c.raft != nil {
			c.raft.Shutdown().Error()
		}
		if c.fence != nil {
			c.fence.Close()
		}
		if c.chain != nil {
			c.chain.close()
		}
		return nil, fmt.Errorf("start consensus: %w", err)
	}
	for _, run := range []func(){c.leadership, c.propose, c.approve, c.keepMark, c.announce, c.complain, c.testify, c.follow} {
		c.spawn(run)
	}
	return c, nil
}

func (c *Consensus) open() (err error) {
	if c.promise, err = loadPromise(c.cfg.Promises); err != nil {
		return err
	}
	if c.chain, err = openChain(filepath.Join(c.cfg.Dir, "heads"), c.cfg.Cluster); err != nil {
		return err
	}
	c.genesis = c.cfg.App.View().Epoch
	c.publish(c.cfg.App.View(), 0)
	c.loadProofs()
	if c.snaps, err = openSnapshots(filepath.Join(c.cfg.Dir, "snapshots"), c); err != nil {
		return err
	}
	c.guard = &guardedLog{Store: c.cfg.Log, c: c}
	if err := c.guard.check(c.promise); err != nil {
		return err
	}

	conf := raft.DefaultConfig()
	s := c.cfg.Settings
	conf.LocalID = serverID(c.cfg.Self)
	conf.HeartbeatTimeout, conf.ElectionTimeout = s.HeartbeatTimeout, s.ElectionTimeout
	conf.LeaderLeaseTimeout, conf.CommitTimeout = s.LeaderLeaseTimeout, s.CommitTimeout
	conf.SnapshotThreshold, conf.SnapshotInterval = s.SnapshotThreshold, s.SnapshotInterval
	conf.TrailingLogs = s.TrailingLogs
	conf.MaxAppendEntries = maxAppendEntries
	conf.ShutdownOnRemove = false // it goes on as reader and says why
	conf.NoLegacyTelemetry = true
	conf.Logger = newRaftLogger(c.log)

	trans := c.cfg.Transport
	if trans == nil {
		c.layer = newLayer(c.cfg.Stream, c)
		trans = newBound(c.layer, raft.NetworkTransportConfig{
			MaxPool: 3, MaxRPCsInFlight: 8, Timeout: transportTimeout, MsgpackUseNewTimeFormat: true, Logger: conf.Logger,
		})
	}
	logs, err := raft.NewLogCache(2*maxAppendEntries, c.guard)
	if err != nil {
		return err
	}
	c.fence = newFence(trans, c, logs)

	exists, err := raft.HasExistingState(logs, c.guard, c.snaps)
	if err != nil {
		return err
	}
	if !exists {
		var servers []raft.Server
		for _, m := range c.cfg.Genesis {
			servers = append(servers, raft.Server{ID: serverID(m), Address: raft.ServerAddress(c.cfg.Address(m))})
		}
		if err := raft.BootstrapCluster(conf, logs, c.guard, c.snaps, c.fence, raft.Configuration{Servers: servers}); err != nil {
			return fmt.Errorf("begin an empty log: %w", err)
		}
	}
	if c.raft, err = raft.NewRaft(conf, (*fsm)(c), logs, c.guard, c.snaps, c.fence); err != nil {
		return err
	}
	c.fence.open()
	return c.Err()
}

const (
	maxAppendEntries = 256                   // spec: consensus §2
	transportTimeout = 5 * time.Second       // of one raft RPC; raft scales it up for snapshots
	barrierTimeout   = 5 * time.Second       // to enqueue; a new leader tries again
	barrierPause     = 20 * time.Millisecond // before that, as during a transfer it fails at once
	markEvery        = time.Second           // spec: consensus §3
	recentResults    = 8192                  // codes kept for whoever forwarded a command
)

// serverID is a member's name in raft's configuration. The suffix is its
// incarnation: a seat whose raft directory is lost comes back under the next
// one (spec: consensus §3), which has its own issue.
func serverID(m ledger.MemberID) raft.ServerID { return raft.ServerID(m.String() + "-0") }

// Height is the height this replica has applied.
func (c *Consensus) Height() uint64 { return c.now().Height }

func (c *Consensus) now() applied {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Header returns what the head at height hashes, for 1 ≤ height ≤ Height.
func (c *Consensus) Header(height uint64) (ledger.Header, error) { return c.chain.header(height) }

// Head returns the head at height; at 0 it is the genesis hash.
func (c *Consensus) Head(height uint64) (ledger.Hash, error) { return c.chain.headAt(height) }

// Descends proves that the head at height to descends from head at height from,
// recomputing every link between them.
func (c *Consensus) Descends(from uint64, head ledger.Hash, to uint64) error {
	_, err := c.chain.descend(from, head, to)
	return err
}

// Leader names the member that orders commands now, as far as this node knows.
func (c *Consensus) Leader() (ledger.MemberID, bool) {
	_, id := c.raft.LeaderWithID()
	m, err := memberOf(id)
	return m, err == nil
}

// Leading reports whether this node is the leader and has applied everything
// that leaders before it acknowledged.
func (c *Consensus) Leading() bool {
	return c.raft.State() == raft.Leader && c.readyTerm.Load() == c.raft.CurrentTerm()
}

// Status is for people and for metrics.
type Status struct {
	Height      uint64
	Head        ledger.Hash
	Leader      ledger.MemberID
	HasLeader   bool
	Leading     bool
	Term        uint64
	Promised    uint64     // height of the last promise
	Certified   Checkpoint // what the newest certificate names; none: height 0
	LastContact time.Time
	Unapplied   uint64 // raft entries that are committed and not applied here yet; each holds one command or more
	Equivocated uint64 // approvals that contradicted an earlier one of their author
	Unproven    uint64 // height of a state taken over from another member and proved by nobody yet; 0: none
	Ahead       uint64 // height of a checkpoint that this node has not reached; 0: none
	Forked      uint64 // newest height at which f+1 members approve another history or state; 0: none
	Complaints  []HeardComplaint
	Shunned     []Shunned
	Proofs      []Proof // that a member of the epoch in force signed two entries for one slot; one for each such member
}

// Status describes this node now.
func (c *Consensus) Status() Status {
	at := c.now()
	s := Status{Height: at.Height, Head: at.Head, Leading: c.Leading(), Term: c.raft.CurrentTerm(),
		Promised: c.Promise().Height, LastContact: c.raft.LastContact()}
	if done, known := c.raft.AppliedIndex(), c.raft.CommitIndex(); known > done {
		s.Unapplied = known - done
	}
	s.Leader, s.HasLeader = c.Leader()
	s.Certified, s.Equivocated, s.Forked = c.pool.status()
	s.Unproven, s.Ahead = c.unproven.Load(), c.ahead()
	s.Complaints, s.Shunned = c.grieve.alarms(time.Now())
	s.Proofs = c.witness.list(at.Epoch)
	return s
}

// Transfer hands leadership to another member; on a node that does not lead it
// does nothing.
func (c *Consensus) Transfer(ctx context.Context) error {
	if c.raft.State() != raft.Leader {
		return nil
	}
	done := make(chan error, 1)
	if !c.spawn(func() { done <- c.raft.LeadershipTransfer().Error() }) {
		return ErrClosed
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("transfer leadership: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when this node must stop: its disk fails, its own data does not
// decode, or its promise is broken. Err then says why.
func (c *Consensus) Done() <-chan struct{} { return c.failed }

// Err is nil until Done is closed.
func (c *Consensus) Err() error {
	select {
	case <-c.failed:
		return c.failure
	default:
		return nil
	}
}

func (c *Consensus) fail(err error) {
	c.failOnce.Do(func() {
		c.failure = err
		close(c.failed)
	})
}

// Close leaves the cluster. Whoever wants no gap calls Transfer first.
func (c *Consensus) Close() error {
	c.once.Do(func() {
		c.spawnMu.Lock()
		c.cancel()
		c.spawnMu.Unlock()
		// Every future of raft is answered while raft runs: at the latest when
		// the leader's lease ends. After Shutdown some never are.
		c.wg.Wait()
		c.raft.Shutdown().Error()
		c.fence.Close()
		c.chain.close()
	})
	return nil
}

// spawn runs f on a goroutine that Close waits for, unless Close began.
func (c *Consensus) spawn(f func()) bool {
	c.spawnMu.Lock()
	defer c.spawnMu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.wg.Go(f)
	return true
}

// leadership calls Barrier once per election: commands that earlier leaders
// acknowledged are then applied here (spec: consensus §2).
func (c *Consensus) leadership() {
	for {
		select {
		case leads := <-c.raft.LeaderCh():
			for leads && c.ctx.Err() == nil && c.raft.State() == raft.Leader {
				term := c.raft.CurrentTerm()
				if err := c.raft.Barrier(barrierTimeout).Error(); err == nil {
					c.readyTerm.Store(term)
					break
				}
				select {
				case <-time.After(barrierPause):
				case <-c.ctx.Done():
				}
			}
		case <-c.ctx.Done():
			return
		}
	}
}
