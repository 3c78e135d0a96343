package node

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/consensus/raftlog"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/alert"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/history"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Kinds of requests between members (p2p.Request).
const (
	requestSubmit    byte = 1 // a command for the leader
	requestSignature byte = 2 // a finished signature
	requestCase      byte = 3 // evidence against a member
	requestSeats     byte = 4 // who holds a seat today
)

// Node is one running member.
type Node struct {
	cfg     Config
	key     ed25519.PrivateKey
	self    ledger.MemberID
	log     *slog.Logger
	metrics *metrics
	reg     *prometheus.Registry

	app    *app
	judges *verifier
	cons   *consensus.Consensus
	proof  proof    // cons
	liar   *traitor // nil: an honest node
	peers  *p2p.Host
	keys   *keystore.Keystore
	tss    *tss.Signer
	raft   *raftlog.Store
	room   *room
	chains map[string]chains.Chain

	public, operator net.Listener
	control          net.Listener // control.sock
	history          *history.Store
	alerts           *alert.Engine
	started          time.Time
	pace             pace // of supervise; tests are less patient
	wg               sync.WaitGroup

	making    sync.Mutex        // held while pre-parameters are made
	screening *screening        // nil: none
	fenceMu   sync.Mutex        // held while a chain is compared with the ledger
	fences    map[string]*Fence // by chain; under fenceMu
	figures   figures           // what metrics need to have seen before

	saying           sync.Mutex                    // held while a statement is numbered and ordered
	seq, seqReserved uint64                        // under saying
	said             map[string]ledger.PriceReport // the attestor's alone: own newest signed report, by asset
	foreign          foreignWatch                  // the attestor's alone
	noted            uint64                        // the keeper's alone: newest epoch in its note of what is in force

	mu          sync.Mutex
	prepared    bool
	prices      map[string]ledger.PriceReport
	seen        map[string]chains.Observations
	seenAt      map[string]uint64 // height of the ledger that the picture was matched against
	chainStatus map[string]api.ChainStatus
	ignored     map[string]bool
	rescans     map[string]uint64 // by chain: the height an operator wants looked at from
	readyShares []ledger.ShareReady
	keyMissing  map[string]string
	wiped       []ledger.Generation // KeyShares that this keystore has destroyed
	restored    string              // why this seat is a learner; "": it is none
	gaveUp      map[jobKey]ledger.GaveUp
	balances    map[string]ledger.BalanceFact // by asset: what this node's chain held at the block last asked for
	tooCheap    map[inputKey]bool             // newest transactions that the own chain node refused as too cheap
	refusals    map[jobKey]ledger.Refusal
	failedAt    map[jobKey]time.Time
	blames      map[ledger.MemberID]blamed
	cases       map[caseKey]*heldCase         // what this node found proven lately
	judged      map[ledger.MemberID]time.Time // when a member last had a case judged here
	verdicts    map[jobKey]bool
	introduced  introduced
	sigs        map[inputKey]signature
	unshared    map[inputKey]map[ledger.MemberID]bool // who has not confirmed a signature of ours
	turns       map[turnKey]chan uint64
	sessions    map[tss.SessionID]api.Session
}

// Open opens what a node keeps on disk and joins its peers. Run does the work;
// Close must follow either way. A wrong passphrase is keystore.ErrPassphrase.
func Open(cfg Config, g ledger.Genesis, passphrase []byte, log *slog.Logger) (_ *Node, err error) {
	if err := cfg.Validate(g); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	n := &Node{
		cfg: cfg, log: log, reg: prometheus.NewRegistry(), started: time.Now(),
		chains: map[string]chains.Chain{},
		prices: map[string]ledger.PriceReport{}, seen: map[string]chains.Observations{}, seenAt: map[string]uint64{}, chainStatus: map[string]api.ChainStatus{},
		ignored: map[string]bool{}, rescans: map[string]uint64{}, keyMissing: map[string]string{}, gaveUp: map[jobKey]ledger.GaveUp{},
		refusals: map[jobKey]ledger.Refusal{}, screening: newScreening(cfg.Screen),
		failedAt: map[jobKey]time.Time{}, blames: map[ledger.MemberID]blamed{}, cases: map[caseKey]*heldCase{}, judged: map[ledger.MemberID]time.Time{}, verdicts: map[jobKey]bool{}, sigs: map[inputKey]signature{},
		unshared: map[inputKey]map[ledger.MemberID]bool{}, turns: map[turnKey]chan uint64{}, sessions: map[tss.SessionID]api.Session{},
		fences: map[string]*Fence{}, tooCheap: map[inputKey]bool{}, balances: map[string]ledger.BalanceFact{},
	}
	n.metrics = newMetrics(n.reg)
	if n.liar, err = newTraitor(n, cfg.TraitorOf, g); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	// Bind the ports first: a port in use is the commonest reason not to start.
	if n.public, err = listen(cfg.API); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if cfg.Operator != "" {
		if n.operator, err = listen(cfg.Operator); err != nil {
			return nil, fmt.Errorf("operator listener: %w", err)
		}
	}
	if n.keys, n.key, err = openKeystore(cfg.Dir, passphrase, log); err != nil {
		return nil, err
	}
	if n.control, err = listenControl(cfg.Dir); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := n.loadRestored(); err != nil {
		return nil, err
	}
	n.self = ledger.MemberID(n.key.Public().(ed25519.PublicKey))
	switch seat := g.Epoch.Seat(n.self); {
	case seat >= 0:
		n.cfg.Name = g.Epoch.Members[seat].Name
	case cfg.Name == "":
		return nil, fmt.Errorf("this node's identity %s holds no seat in the genesis; one that is to join a running cluster is made by `coffer node join`", n.self)
	}
	n.log = log.With(slog.String("node", n.cfg.Name))
	n.judges = newVerifier(verifierWorkers(), n.reg)
	if n.app, err = newApp(g, n.judges); err != nil {
		return nil, err
	}
	n.history = history.Open(history.Config{
		Dir: filepath.Join(cfg.Dir, "history"), Cluster: n.app.state.Cluster, Log: n.log, Failed: n.metrics.historyFailed,
	})
	n.app.history, n.app.log = n.history, n.log
	if n.app.strikes, err = cfg.strikes(n.app.state.Cluster); err != nil {
		return nil, err
	}
	n.alerts, err = alert.New(alert.Config{
		Rules: cfg.Alerts, Genesis: g, Source: n, History: n.history, Log: n.log, Count: n.metrics.alert,
		Live: func(v *ledger.State) bool { return time.Since(time.UnixMilli(int64(v.Millis))) < time.Minute },
	})
	if err != nil {
		return nil, err
	}
	for _, c := range cfg.Chains {
		p, ok := g.Chain(c.Name)
		if !ok {
			return nil, fmt.Errorf("chain %q is not in the genesis", c.Name)
		}
		if n.chains[c.Name], err = newChain(c, p, g.Assets); err != nil {
			return nil, err
		}
	}
	if err := n.loadKept(); err != nil {
		return nil, err
	}
	var genesis []ledger.MemberID
	for _, m := range g.Epoch.Members {
		genesis = append(genesis, m.ID)
	}
	peers := n.plannedPeers(n.app.state, nil)
	if n.peers, err = p2p.New(p2p.Config{Key: n.key, Listen: cfg.Listen, Peers: peers, AliveAfter: time.Duration(cfg.AliveAfter), Log: n.log}); err != nil {
		return nil, err
	}
	n.tss, err = tss.New(tss.Config{
		Identity: n.key, Cluster: n.app.state.Cluster, Keystore: n.keys, Log: n.log,
		Transport: transport{n.peers}, OnJoin: n.onJoin, JoinWait: time.Duration(cfg.JoinWait), SilenceMin: time.Duration(cfg.Silence),
		// In a second try every member has to make its pre-parameters first, some in
		// 10 s and others in a minute where many share the cores.
		KeygenJoinWait: 2 * time.Minute,
	})
	if err != nil {
		return nil, err
	}
	watchChildren(n.reg, n.tss.Stats)
	n.hearSessions()

	if err := os.MkdirAll(filepath.Join(cfg.Dir, "raft"), 0o700); err != nil {
		return nil, err
	}
	var unfinished string
	if n.app.trail, unfinished, err = openTrail(filepath.Join(cfg.Dir, "raft", "applying")); err != nil {
		return nil, err
	}
	if unfinished != "" {
		n.log.Warn("this node ended while it applied a command: if it does so again, see the runbook on Broken", slog.String("command", unfinished))
	}
	if n.raft, err = raftlog.Open(filepath.Join(cfg.Dir, "raft", "log")); err != nil {
		return nil, err
	}
	n.room, err = openRoom(cfg.Disk, func() (uint64, error) { return FreeDisk(cfg.Dir) }, n.raft.SyncP99, n.log)
	if err != nil {
		return nil, err
	}
	cons, err := consensus.New(consensus.Config{
		Self: n.self, Cluster: n.app.state.Cluster, Genesis: genesis, Dir: filepath.Join(cfg.Dir, "raft"),
		App: n.app, Log: n.raft, Stream: n.peers.Raft(),
		Address: func(m ledger.MemberID) string {
			a, err := p2p.RaftAddress(p2p.ID(m))
			if err != nil {
				return ""
			}
			return string(a)
		},
		Checkpoints: cfg.Checkpoints,
		Forwarder:   forwarder{n.peers}, Gossip: gossip{n.peers},
		Promises: n.keys, Mark: marks{n.keys}, Room: n.room.admits,
		Sign:       func(a ledger.Approval) ledger.MemberSig { return ledger.SignApproval(n.key, a) },
		MayApprove: n.mayApprove, Arrived: n.app.arrived,
		SignSlot:      func(s consensus.Slot) ledger.MemberSig { return consensus.SignSlot(n.key, s) },
		SignComplaint: func(x consensus.Complaint) ledger.MemberSig { return consensus.SignComplaint(n.key, x) },
		Alive:         func(m ledger.MemberID) bool { return n.peers.Alive(p2p.ID(m)) },
		MayVote:       func() bool { is, _ := n.learner(); return !is },
		Settings:      cfg.settings(), Logger: n.log,
	})
	if err != nil {
		return nil, err
	}
	n.cons, n.proof = cons, cons
	n.reg.MustRegister(collector{n})
	if err := n.loadVerdicts(); err != nil {
		return nil, err
	}
	n.peers.HandleGossip(consensus.GossipApproval, func(from p2p.ID, body []byte) {
		if err := n.cons.HandleApproval(ledger.MemberID(from), body); err != nil {
			n.log.Debug("approval refused", slog.String("peer", n.name(ledger.MemberID(from))), slog.Any("err", err))
		}
	})
	n.peers.HandleGossip(consensus.GossipComplaint, func(from p2p.ID, body []byte) {
		if err := n.cons.HandleComplaint(ledger.MemberID(from), body); err != nil {
			n.log.Debug("complaint refused", slog.String("peer", n.name(ledger.MemberID(from))), slog.Any("err", err))
		}
	})
	n.peers.HandleGossip(consensus.GossipAccount, func(from p2p.ID, body []byte) {
		if err := n.cons.HandleAccount(ledger.MemberID(from), body); err != nil {
			n.log.Debug("account of a leader refused", slog.String("peer", n.name(ledger.MemberID(from))), slog.Any("err", err))
		}
	})
	watchConsensus(n.reg, n.cons.Status)
	n.answerPeers()
	return n, nil
}

// hearSessions hands what other parties send to tss.
func (n *Node) hearSessions() {
	n.peers.Handle(func(from p2p.ID, frame []byte) {
		if err := n.tss.Receive(tss.PartyID(from), frame); err != nil {
			n.log.Debug("session message refused", slog.String("peer", n.name(ledger.MemberID(from))), slog.Any("err", err))
		}
	})
	n.peers.OnDisconnect(func(from p2p.ID) { n.tss.Disconnected(tss.PartyID(from)) })
}

// answerPeers says who answers which request of another node.
func (n *Node) answerPeers() {
	n.peers.HandleRequest(requestSubmit, func(ctx context.Context, from p2p.ID, body []byte) ([]byte, error) {
		return n.cons.HandleForward(ctx, ledger.MemberID(from), body), nil
	})
	n.peers.HandleRequest(requestSignature, n.takeSignature)
	n.peers.HandleRequest(requestCase, n.takeCase)
	n.peers.HandleRequest(requestSeats, n.tellSeats)
}

func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("port of %s cannot be used, choose another or stop who uses it: %w", addr, err)
	}
	return l, nil
}

// Run works until ctx ends or this node must stop for good.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := []func(context.Context){n.watchPrices, n.keep, n.prepare, n.alerts.Run, n.watchFigures, n.screenInflows, n.followSeats, n.meet, n.room.watch}
	for name, loop := range map[string]func(context.Context, func()){"attest": n.attest, "sign": n.sign, "broadcast": n.broadcast, "share": n.share, "accuse": n.showCases} {
		work = append(work, func(ctx context.Context) { n.supervise(ctx, name, loop) })
	}
	if n.liar != nil {
		n.log.Error("THIS NODE IS A TRAITOR: it lies and sends garbage, for a test")
		work = append(work, n.liar.babble)
	}
	for name, c := range n.chains {
		work = append(work, func(ctx context.Context) { n.observe(ctx, name, c) })
	}
	for _, w := range work {
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			w(ctx)
		}()
	}
	streams, endStreams := context.WithCancel(ctx)
	defer endStreams()
	servers := []*http.Server{n.serve(n.public, api.New(n, api.Config{Log: n.log, History: n.history, Version: Version, Closing: streams.Done()}))}
	if n.operator != nil {
		token, err := n.operatorToken()
		if err != nil {
			return err
		}
		servers = append(servers, n.serve(n.operator, api.NewOperator(n, api.Config{Log: n.log, Version: Version},
			api.Operator{Token: token, Metrics: promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{})})))
	}
	servers = append(servers, n.serve(n.control, api.NewControl(n, api.Config{Log: n.log, Version: Version})))
	n.log.Info("node started", slog.String("name", n.cfg.Name), slog.String("api", n.public.Addr().String()), slog.String("peer", n.peers.Addr()))

	var err error
	select {
	case <-ctx.Done():
	case <-n.cons.Done():
		err = n.cons.Err()
	}
	stop, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	// Leadership first: whoever asks here meanwhile is forwarded to the next leader,
	// and nobody waits for the calls that are open here.
	if e := n.cons.Transfer(stop); e != nil {
		n.log.Debug("leadership not handed over", slog.Any("err", e))
	}
	endStreams()
	for _, s := range servers {
		if e := s.Shutdown(stop); e != nil {
			s.Close()
		}
	}
	cancel()
	n.wg.Wait()
	return err
}

func (n *Node) serve(l net.Listener, h http.Handler) *http.Server {
	s := api.HTTPServer(h, n.log)
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := s.Serve(api.Bound(l)); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.log.Error("listener ended", slog.String("addr", l.Addr().String()), slog.Any("err", err))
		}
	}()
	return s
}

// Close releases what Open took. Safe after a failed Open.
func (n *Node) Close() error {
	var errs []error
	if n.tss != nil {
		n.tss.Close()
	}
	if n.cons != nil {
		errs = append(errs, n.cons.Close())
	}
	if n.judges != nil {
		n.judges.close()
	}
	if n.peers != nil {
		errs = append(errs, n.peers.Close())
	}
	if n.raft != nil {
		errs = append(errs, n.raft.Close())
	}
	if n.history != nil {
		errs = append(errs, n.history.Close())
	}
	if n.app != nil {
		errs = append(errs, n.app.trail.close())
	}
	if n.keys != nil {
		errs = append(errs, n.keys.Close())
	}
	for _, l := range []net.Listener{n.public, n.operator, n.control} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// loadKept reads what an earlier life left in the keystore.
func (n *Node) loadKept() error {
	b, err := n.keys.Get("attestation-seq")
	if err != nil {
		return fmt.Errorf("read attestation number: %w", err)
	}
	if len(b) == 8 {
		n.seq = binary.BigEndian.Uint64(b)
	}
	if err := n.loadSaid(); err != nil {
		return fmt.Errorf("read attested prices: %w", err)
	}
	return nil
}

// name is a member's name, for people.
func (n *Node) name(m ledger.MemberID) string {
	v, _ := n.app.now()
	for _, e := range []ledger.Epoch{v.Epoch(), v.Genesis.Epoch} {
		if i := e.Seat(m); i >= 0 {
			return e.Members[i].Name
		}
	}
	for _, s := range v.Seating() {
		if s.Member.ID == m {
			return s.Member.Name
		}
	}
	return m.String()[:8]
}

func (n *Node) names(ms []ledger.MemberID) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = n.name(m)
	}
	return out
}

func (n *Node) onJoin(j tss.JoinSeen) {
	n.takeJoin(ledger.MemberID(j.From), j.Batch, j.Attempt, int(j.Input), uint64(j.Turn))
}

// Adapters between rooms that do not know each other.

type transport struct{ h *p2p.Host }

func (t transport) Send(ctx context.Context, to tss.PartyID, frame []byte) error {
	return t.h.Send(ctx, p2p.ID(to), frame)
}

type forwarder struct{ h *p2p.Host }

func (f forwarder) Forward(ctx context.Context, leader ledger.MemberID, request []byte) ([]byte, error) {
	b, err := f.h.Request(ctx, p2p.ID(leader), requestSubmit, request)
	if errors.Is(err, p2p.ErrBusy) { // other requests have filled the transport's window
		return nil, &consensus.Overload{Limit: consensus.LimitForwarding}
	}
	return b, err
}

type gossip struct{ h *p2p.Host }

func (g gossip) Broadcast(kind uint8, body []byte) { _ = g.h.Broadcast(kind, body) } // what matters is sent again

type marks struct{ k *keystore.Keystore }

func (m marks) SaveRaftMark(b []byte) error   { return m.k.Put("raft-mark", b) }
func (m marks) LastRaftMark() ([]byte, error) { return m.k.Get("raft-mark") }
