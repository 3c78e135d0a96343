//go:build unix

package testnet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/preparams"
	"golang.org/x/sync/errgroup"
)

// SignBench says what to measure.
type SignBench struct {
	N, M     int
	Rounds   int // signatures of each side
	Library  int // sets of pre-parameters by the library's own generator; 0: not compared
	Progress Progress
}

// SignFigures are measured in one run with the sides in turn, so that the ratios hold on any machine and the seconds
// on this one.
type SignFigures struct {
	CPURatio       float64 `json:"cpu_ratio"`       // cluster ÷ library, per signature
	WallRatio      float64 `json:"wall_ratio"`      // likewise
	ChildCPURatio  float64 `json:"child_cpu_ratio"` // child processes ÷ the node's own process, starting them included
	ChildWallRatio float64 `json:"child_wall_ratio"`
	PreParamsRatio float64 `json:"preparams_ratio"` // ours ÷ library, CPU per set; 0: not compared

	// What a member of the first turn that dies adds to a signature, seconds. Empty: nobody is left for another turn.
	MuteAdds   []float64 `json:"mute_adds_seconds"`   // connected, and joins no session
	KilledAdds []float64 `json:"killed_adds_seconds"` // gone with its connections in mid-session

	N      int `json:"n"`
	M      int `json:"m"`
	Cores  int `json:"cores"`
	Rounds int `json:"rounds"`

	ClusterCPU     []float64 `json:"cluster_cpu_seconds"` // all members together
	ClusterWall    []float64 `json:"cluster_wall_seconds"`
	InProcessCPU   []float64 `json:"in_process_cpu_seconds"` // as cluster, with the library in the node's own process
	InProcessWall  []float64 `json:"in_process_wall_seconds"`
	LibraryCPU     []float64 `json:"library_cpu_seconds"` // the same signing by tss-lib alone, one process
	LibraryWall    []float64 `json:"library_wall_seconds"`
	PreParams      []float64 `json:"preparams_cpu_seconds"`
	PreParamsOther []float64 `json:"library_preparams_cpu_seconds"`
	MaxRSSMiB      float64   `json:"max_rss_mib"` // of this process, which holds all members
}

// Run measures. A cluster signature is what a node does for one: join with fsync in every member's keystore, signed
// envelopes over libp2p on loopback, a child process per member, guard, derived key, verification.
func (b SignBench) Run(ctx context.Context) (f SignFigures, err error) {
	if b.M < 2 || b.N < b.M || b.N > 10 || b.Rounds < 1 {
		return f, fmt.Errorf("%d of %d members and %d rounds: want 2 to 10 members and at least one round", b.M, b.N, b.Rounds)
	}
	f.N, f.M, f.Rounds, f.Cores = b.N, b.M, b.Rounds, runtime.GOMAXPROCS(0)
	sets, err := b.preParams(ctx, &f)
	if err != nil {
		return f, err
	}
	c, err := newBenchCluster(b.N, b.M, sets, false, patient)
	if err != nil {
		return f, err
	}
	defer c.close()
	alone, err := newBenchCluster(b.N, b.M, sets, true, patient)
	if err != nil {
		return f, err
	}
	defer alone.close()
	if err := b.compare(ctx, c, alone, &f); err != nil {
		return f, err
	}
	f.CPURatio, f.WallRatio = sum(f.ClusterCPU)/sum(f.LibraryCPU), sum(f.ClusterWall)/sum(f.LibraryWall)
	f.ChildCPURatio, f.ChildWallRatio = sum(f.ClusterCPU)/sum(f.InProcessCPU), sum(f.ClusterWall)/sum(f.InProcessWall)
	if b.N > b.M {
		if err := b.dead(ctx, sets, &f); err != nil {
			return f, err
		}
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err == nil {
		f.MaxRSSMiB = float64(u.Maxrss) / 1024
	}
	return f, nil
}

// compare makes signatures of all three kinds in turn.
func (b SignBench) compare(ctx context.Context, c, alone *benchCluster, f *SignFigures) (err error) {
	task := b.Progress.Begin("signatures, cluster and library in turn", Size{Total: int64(3 * b.Rounds)})
	defer func() { task.End(err) }()
	for i := range b.Rounds {
		digest := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		cpu, wall, err := spend(func() error { return c.sign(ctx, i, digest) })
		if err != nil {
			return fmt.Errorf("cluster signature: %w", err)
		}
		f.ClusterCPU, f.ClusterWall = append(f.ClusterCPU, cpu), append(f.ClusterWall, wall)
		task.Add(1)
		if cpu, wall, err = spend(func() error { return alone.sign(ctx, i, digest) }); err != nil {
			return fmt.Errorf("cluster signature in one process: %w", err)
		}
		f.InProcessCPU, f.InProcessWall = append(f.InProcessCPU, cpu), append(f.InProcessWall, wall)
		task.Add(1)
		if cpu, wall, err = spend(func() error { return tss.RawSign(ctx, c.cluster, c.shares[:b.M], digest[:]) }); err != nil {
			return fmt.Errorf("library signature: %w", err)
		}
		f.LibraryCPU, f.LibraryWall = append(f.LibraryCPU, cpu), append(f.LibraryWall, wall)
		task.Add(1)
	}
	return nil
}

// dead measures what a dead member adds: the turns that fail by it and the one that does not, less a signature. In the
// first case the others wait for it as long as a node does; in the second their transports tell.
func (b SignBench) dead(ctx context.Context, sets []*keygen.LocalPreParams, f *SignFigures) (err error) {
	task := b.Progress.Begin("signatures with a member that dies", Size{Total: int64(2 * b.Rounds)})
	defer func() { task.End(err) }()
	normal := sum(f.ClusterWall) / float64(len(f.ClusterWall))
	for range b.Rounds {
		if err := b.deadOnce(ctx, sets, normal, f, task); err != nil {
			return err
		}
	}
	return nil
}

// deadOnce has a cluster of its own: one member does not survive it.
func (b SignBench) deadOnce(ctx context.Context, sets []*keygen.LocalPreParams, normal float64, f *SignFigures, task Task) error {
	c, err := newBenchCluster(b.N, b.M, sets, false, 0)
	if err != nil {
		return err
	}
	defer c.close()
	_, wall, err := spend(func() error { return c.signWithout(ctx, 0, nil) })
	if err != nil {
		return fmt.Errorf("signature with a member that joins nothing: %w", err)
	}
	f.MuteAdds = append(f.MuteAdds, wall-normal)
	task.Add(1)
	half := time.Duration(normal / 2 * float64(time.Second))
	if _, wall, err = spend(func() error { return c.signWithout(ctx, 1, func() { time.Sleep(half) }) }); err != nil {
		return fmt.Errorf("signature with a member that is killed: %w", err)
	}
	f.KilledAdds = append(f.KilledAdds, wall-normal)
	task.Add(1)
	return nil
}

// preParams makes the sets that the members' key needs, the library's in turn with them.
func (b SignBench) preParams(ctx context.Context, f *SignFigures) (sets []*keygen.LocalPreParams, err error) {
	task := b.Progress.Begin("pre-parameters, ours and the library's in turn", Size{Total: int64(b.N + b.Library), Expected: time.Duration(b.N*4+b.Library*50) * time.Second})
	defer func() { task.End(err) }()
	for i := range max(b.N, b.Library) {
		if i < b.N {
			cpu, _, err := spend(func() error {
				pp, err := preparams.Generate(ctx, 1, nil)
				sets = append(sets, pp)
				return err
			})
			if err != nil {
				return nil, err
			}
			f.PreParams = append(f.PreParams, cpu)
			task.Add(1)
		}
		if i < b.Library {
			cpu, _, err := spend(func() error { _, err := keygen.GeneratePreParamsWithContext(ctx, 1); return err })
			if err != nil {
				return nil, fmt.Errorf("library's pre-parameters: %w", err)
			}
			f.PreParamsOther = append(f.PreParamsOther, cpu)
			task.Add(1)
		}
	}
	if b.Library > 0 {
		f.PreParamsRatio = sum(f.PreParams) / float64(len(f.PreParams)) / (sum(f.PreParamsOther) / float64(b.Library))
	}
	return sets, nil
}

// spend runs f and says what it took of the CPU of this process and of its children that ended, and of the clock, in
// seconds.
func spend(f func() error) (cpu, wall float64, err error) {
	runtime.GC() // garbage of the side before is not this side's
	before, err := preparams.CPUSeconds()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	err = f()
	wall = time.Since(start).Seconds()
	after, e := preparams.CPUSeconds()
	return after - before, wall, errors.Join(err, e)
}

func sum(xs []float64) (s float64) {
	for _, x := range xs {
		s += x
	}
	return s
}

// benchCluster is n members' signing rooms over loopback, with a key dealt for the occasion.
type benchCluster struct {
	dir     string
	cluster [32]byte
	m       int
	parties []tss.PartyID
	shares  []keystore.KeyShare
	signers []*tss.Signer
	hosts   []*p2p.Host
	stores  []*keystore.Keystore
}

// patient: where nobody dies, a slow machine fails no measurement. 0 is a node's own wait.
const patient = 10 * time.Second

var benchKey = tss.KeyID{ID: "bench", Curve: tss.Secp256k1}

type benchTransport struct{ h *p2p.Host }

func (t benchTransport) Send(ctx context.Context, to tss.PartyID, frame []byte) error {
	return t.h.Send(ctx, p2p.ID(to), frame)
}

func newBenchCluster(n, m int, sets []*keygen.LocalPreParams, inProcess bool, joinWait time.Duration) (_ *benchCluster, err error) {
	c := &benchCluster{m: m, cluster: sha256.Sum256([]byte("coffer bench"))}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "coffer-bench-"); err != nil {
		return c, err
	}
	var keys []ed25519.PrivateKey
	for range n {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return c, err
		}
		keys = append(keys, key)
		c.parties = append(c.parties, tss.PartyID(pub))
	}
	dealt, err := tss.Deal(tss.Request{Cluster: c.cluster, Kind: tss.Keygen, Key: benchKey, Epoch: 1, Try: 1, Parties: c.parties, M: m}, sets)
	if err != nil {
		return c, err
	}
	var peers []p2p.Peer
	for i, key := range keys {
		var pass [16]byte
		rand.Read(pass[:])
		ks, err := keystore.Init(filepath.Join(c.dir, fmt.Sprint(i)), pass[:], keystore.Options{Node: c.parties[i]})
		if err != nil {
			return c, err
		}
		c.stores = append(c.stores, ks)
		share := dealt[c.parties[i]]
		c.shares = append(c.shares, share)
		if err := errors.Join(ks.StageKeyShare(share), ks.Activate(share.ID)); err != nil {
			return c, err
		}
		h, err := p2p.New(p2p.Config{Key: key, AliveAfter: 10 * time.Second})
		if err != nil {
			return c, err
		}
		c.hosts = append(c.hosts, h)
		s, err := tss.New(tss.Config{Identity: key, Cluster: c.cluster, Keystore: ks, Transport: benchTransport{h}, JoinWait: joinWait, InProcess: inProcess})
		if err != nil {
			return c, err
		}
		c.signers = append(c.signers, s)
		h.Handle(func(from p2p.ID, frame []byte) { _ = s.Receive(tss.PartyID(from), frame) }) // a refused frame shows as a session that fails
		h.OnDisconnect(func(from p2p.ID) { s.Disconnected(tss.PartyID(from)) })
		peers = append(peers, p2p.Peer{ID: p2p.ID(c.parties[i]), Addr: h.Addr(), Role: p2p.Member})
	}
	for _, h := range c.hosts {
		if err := h.SetPeers(peers); err != nil {
			return c, err
		}
	}
	return c, c.connect()
}

func (c *benchCluster) connect() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		all := true
		for i, h := range c.hosts {
			for j := range c.hosts {
				all = all && (i == j || h.Connected(p2p.ID(c.parties[j])))
			}
		}
		if all {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("members did not connect on loopback")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// request is for one signature under a derived key, as for a payout.
func (c *benchCluster) request(round int, turn uint16, digest [32]byte, parties []tss.PartyID) tss.Request {
	r := tss.Request{
		Cluster: c.cluster, Kind: tss.Sign, Key: benchKey, Epoch: 1, Try: 1, Batch: uint64(round + 1), Turn: turn,
		Parties: parties, Digest: digest[:], Tweak: sha256.Sum256([]byte("bench tweak")),
	}
	r.Session = tss.SessionName(r)
	return r
}

// sign makes one signature by the first m members.
func (c *benchCluster) sign(ctx context.Context, round int, digest [32]byte) error {
	r := c.request(round, 0, digest, c.parties[:c.m])
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range c.signers[:c.m] {
		g.Go(func() error { _, err := s.Sign(ctx, r); return err })
	}
	return g.Wait()
}

// signWithout makes one signature whose first turn fails by its m-th member: it never joins, or joins and is gone
// with its connections when lives returns; after the last round that harms nobody. The turns after it are with the
// member behind it, as at nodes; each begins when all have seen the one before fail, which nodes do not wait for.
func (c *benchCluster) signWithout(ctx context.Context, round int, lives func()) error {
	last := c.m - 1
	committee := c.parties[:c.m]
	for turn := range uint16(ledger.TurnLimit) {
		r := c.request(round, turn, sha256.Sum256([]byte{byte(round), 'd'}), committee)
		var g errgroup.Group
		for i, s := range c.signers {
			if slices.Contains(committee, c.parties[i]) && (turn > 0 || i != last) {
				g.Go(func() error { _, err := s.Sign(ctx, r); return err })
			}
		}
		if turn == 0 && lives != nil {
			go c.signers[last].Sign(ctx, r) // ends with its Signer
			lives()
			c.hosts[last].Close()
			c.signers[last].Close()
		}
		var b *tss.Blame
		if err := g.Wait(); !errors.As(err, &b) {
			return err
		}
		committee = append(slices.Clone(c.parties[:last]), c.parties[c.m])
	}
	return fmt.Errorf("%d turns failed", ledger.TurnLimit)
}

func (c *benchCluster) close() {
	for _, s := range c.signers {
		s.Close()
	}
	for _, h := range c.hosts {
		h.Close()
	}
	for _, k := range c.stores {
		k.Close()
	}
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}
