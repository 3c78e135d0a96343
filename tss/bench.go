//go:build unix

package tss

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	"golang.org/x/sync/errgroup"

	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/preparams"
)

// BenchResult compares full sessions of all parties with the bare library,
// measured in turn in one process.
type BenchResult struct {
	CPU       []float64 `json:"cpu_seconds"`      // per signature, all parties, all layers
	Wall      []float64 `json:"wall_seconds"`     //
	RawCPU    []float64 `json:"raw_cpu_seconds"`  // the library alone, same parties
	RawWall   []float64 `json:"raw_wall_seconds"` //
	Bytes     uint64    `json:"bytes_per_party"`  // sent, of one signature
	CPURatio  float64   `json:"cpu_ratio"`
	WallRatio float64   `json:"wall_ratio"`
}

// Bench makes count ECDSA signatures by m of n members of a dealt key and as
// many with RawSign, alternating. pp may hold n sets of pre-parameters;
// otherwise they are made first. The process should do nothing else.
func Bench(ctx context.Context, n, m, count int, pp []*ecdsakeygen.LocalPreParams) (BenchResult, error) {
	var res BenchResult
	if count < 1 {
		return res, errors.New("bench: want at least one signature")
	}
	for len(pp) < n {
		set, err := preparams.Generate(ctx, 0, nil)
		if err != nil {
			return res, fmt.Errorf("bench: %w", err)
		}
		pp = append(pp, set)
	}
	dir, err := os.MkdirTemp("", "coffer-bench-")
	if err != nil {
		return res, fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(dir)
	b := benchCluster{net: NewLoopback(), key: KeyID{ID: "bench", Curve: Secp256k1}}
	defer b.close()
	if err := b.open(dir, n, m, pp); err != nil {
		return res, fmt.Errorf("bench: %w", err)
	}
	for i := range count {
		// Which side goes first alternates too.
		sides := []func() error{
			func() error { return b.measure(&res.RawCPU, &res.RawWall, func() error { return b.raw(ctx, m, i) }) },
			func() error { return b.measure(&res.CPU, &res.Wall, func() error { return b.sign(ctx, m, i) }) },
		}
		if i%2 == 1 {
			sides[0], sides[1] = sides[1], sides[0]
		}
		for _, side := range sides {
			if err := side(); err != nil {
				return res, fmt.Errorf("bench signature %d: %w", i, err)
			}
		}
	}
	res.Bytes = b.net.Bytes() / uint64(count*m)
	res.CPURatio, res.WallRatio = sum(res.CPU)/sum(res.RawCPU), sum(res.Wall)/sum(res.RawWall)
	return res, nil
}

type benchCluster struct {
	net     *Loopback
	key     KeyID
	parties []PartyID
	signers []*Signer
	stores  []*keystore.Keystore
	shares  map[PartyID]keystore.KeyShare
}

func (b *benchCluster) open(dir string, n, m int, pp []*ecdsakeygen.LocalPreParams) error {
	var ids []ed25519.PrivateKey
	for range n {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		ids, b.parties = append(ids, key), append(b.parties, PartyID(pub))
	}
	var err error
	if b.shares, err = Deal(Request{Key: b.key, Epoch: 1, Parties: b.parties, M: m}, pp); err != nil {
		return err
	}
	for i, p := range b.parties {
		ks, err := keystore.Init(filepath.Join(dir, p.String()), nil, keystore.Options{Node: p, TestWorkFactor: 4})
		if err != nil {
			return err
		}
		b.stores = append(b.stores, ks)
		if err := errors.Join(ks.StageKeyShare(b.shares[p]), ks.Activate(b.shares[p].ID)); err != nil {
			return err
		}
		s, err := New(Config{Identity: ids[i], Keystore: ks, Transport: b.net.Node(p), JoinWait: time.Minute, SilenceMin: time.Minute})
		if err != nil {
			return err
		}
		b.signers = append(b.signers, s)
		b.net.Attach(p, s)
	}
	return nil
}

func (b *benchCluster) close() {
	for _, s := range b.signers {
		s.Close()
	}
	for _, k := range b.stores {
		_ = k.Close() // in a directory that is removed next
	}
}

func (b *benchCluster) measure(cpu, wall *[]float64, f func() error) error {
	before, err := preparams.CPUSeconds()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := f(); err != nil {
		return err
	}
	*wall = append(*wall, time.Since(begin).Seconds())
	after, err := preparams.CPUSeconds()
	*cpu = append(*cpu, after-before)
	return err
}

func (b *benchCluster) digest(i int) []byte {
	d := make([]byte, 32)
	d[31] = byte(i + 1)
	return d
}

func (b *benchCluster) raw(ctx context.Context, m, i int) error {
	shares := make([]keystore.KeyShare, m)
	for j := range shares {
		shares[j] = b.shares[b.parties[j]]
	}
	return RawSign(ctx, [32]byte{}, shares, b.digest(i))
}

func (b *benchCluster) sign(ctx context.Context, m, i int) error {
	r := Request{Kind: Sign, Key: b.key, Epoch: 1, Batch: uint64(i), Parties: b.parties[:m], Digest: b.digest(i), Deadline: 5 * time.Minute}
	r.Session = SessionName(r)
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range b.signers[:m] {
		g.Go(func() error { _, err := s.Sign(ctx, r); return err })
	}
	return g.Wait()
}

func sum(xs []float64) float64 {
	var s float64
	for _, x := range xs {
		s += x
	}
	return s
}
