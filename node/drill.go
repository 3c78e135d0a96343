package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

// DrillOptions say with whom a drill is held. All m operators run it at the same
// time, each with his own backup on a machine of his own.
type DrillOptions struct {
	Listen string     // multiaddr to be reached at
	Peers  []p2p.Peer // the other m-1, where they listen for the drill
	Name   string     // of this drill, agreed among them and never used before, such as its date
	Wait   time.Duration
	Log    *slog.Logger

	testWorkFactor int
}

// DrillResult is what a drill proved.
type DrillResult struct {
	Cluster string      `json:"cluster"`
	Name    string      `json:"drill"`
	Epoch   uint64      `json:"epoch"` // in force when the own backup was made; that of a KeyShare may be older
	N       uint64      `json:"n"`     // holders
	Took    []string    `json:"took"`  // node ids of the m that took part
	Keys    []DrilledAt `json:"keys"`
}

// DrilledAt is one key's test signature.
type DrilledAt struct {
	Key       string `json:"key"`
	Epoch     uint64 `json:"epoch"`
	Message   string `json:"message"`   // hex
	Signature string `json:"signature"` // R‖S, hex
}

const (
	defaultDrillWait = 2 * time.Minute
	// drillLinger is how long the last messages get to leave: the others may
	// still wait for them.
	drillLinger = 3 * time.Second
)

// Drill makes a test signature of every key with the KeyShares of a backup,
// together with m-1 other operators who do the same. It never opens the node's
// own keystore, which may be in use.
func Drill(ctx context.Context, path string, o DrillOptions, by ...age.Identity) (res DrillResult, err error) {
	if !ledger.DrillName(o.Name) {
		return res, fmt.Errorf("drill: name %q: want 1 to %d printable bytes", o.Name, ledger.MaxDrillName)
	}
	h, c, err := openBackup(path, by)
	if err != nil {
		return res, err
	}
	defer c.wipe()
	rs, err := drillRequests(h, c, o)
	if err != nil {
		return res, err
	}
	if err := useDrillName(path, o.Name); err != nil {
		return res, err
	}
	dir, err := os.MkdirTemp("", "coffer-drill-") // mode 0700
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	ks, err := c.drillKeystore(dir, h, o)
	if err != nil {
		return res, fmt.Errorf("drill: %w", err)
	}
	defer ks.Close()
	key := ed25519.NewKeyFromSeed(c.Seed)
	defer clear(key)
	host, err := p2p.New(p2p.Config{Key: key, Listen: o.Listen, Peers: o.Peers, Log: o.Log})
	if err != nil {
		return res, fmt.Errorf("drill: %w", err)
	}
	defer host.Close()
	wait := o.Wait
	if wait <= 0 {
		wait = defaultDrillWait
	}
	s, err := tss.New(tss.Config{
		Identity: key, Cluster: h.Cluster, Keystore: ks, Transport: transport{host}, Log: o.Log,
		JoinWait: wait, SilenceMin: wait,
	})
	if err != nil {
		return res, fmt.Errorf("drill: %w", err)
	}
	defer s.Close()
	host.Handle(func(from p2p.ID, frame []byte) { _ = s.Receive(tss.PartyID(from), frame) }) // a refusal is the sender's

	res = DrillResult{Cluster: h.Name, Name: o.Name, Epoch: h.Epoch}
	for _, p := range rs[0].Parties {
		res.Took = append(res.Took, ledger.MemberID(p).String())
	}
	slices.Sort(res.Took)
	for _, r := range rs {
		sig, err := s.Sign(ctx, r)
		if err != nil {
			return res, fmt.Errorf("drill: key %s with key shares of epoch %d, in force by this backup: %w", r.Key.ID, r.Epoch, err)
		}
		res.Keys = append(res.Keys, DrilledAt{r.Key.ID, r.Epoch, hex.EncodeToString(r.Digest), hex.EncodeToString(sig.Bytes())})
	}
	for _, k := range h.Keys {
		if k.InForce {
			res.N = max(res.N, k.N)
		}
	}
	sleep(ctx, drillLinger)
	return res, nil
}

// ErrDrillName: a drill of this name was begun with this backup.
var ErrDrillName = errors.New("drill: a drill of this name was begun with this backup: agree on another name")

// useDrillName writes beside the backup that a name is used up, before any
// message leaves. The name is all that names a drill's sessions, and the keystore
// of a drill forgets: without this a drill that failed and is held again would
// let fresh nonces meet old messages of the same session (spec: signing §11).
// Another copy of the backup knows nothing of it.
func useDrillName(path, name string) error {
	h := sha256.Sum256([]byte(name))
	err := writeNewFile(path+".drill-"+hex.EncodeToString(h[:8]), []byte(name+"\n"))
	if errors.Is(err, os.ErrExist) {
		return ErrDrillName
	}
	return err
}

func drilled(cluster ledger.Hash, key string, epoch uint64, name string) []byte {
	h := ledger.DrillMessage(cluster, key, epoch, name)
	return h[:]
}

// drillRequests are the sessions of a drill, one per key, with the KeyShares in
// force. Their place in the hash chain is none: no plan of the ledger has such an At.
func drillRequests(h BackupHeader, c *backupContent, o DrillOptions) ([]tss.Request, error) {
	at := sha256.Sum256(append([]byte("coffer/drill-at/1"), drilled(h.Cluster, "", 0, o.Name)...))
	now := h.inForce()
	var rs []tss.Request
	for _, s := range c.Shares {
		if !slices.Contains(now, s.ID) {
			continue
		}
		r := tss.Request{
			Cluster: h.Cluster, Kind: tss.Sign, Key: tss.KeyID{ID: s.ID.Key, Curve: tss.Curve(s.Curve)}, Epoch: s.ID.Epoch, Try: s.ID.Try,
			Staged: true, At: at, Parties: []tss.PartyID{tss.PartyID(h.Node)}, Digest: drilled(h.Cluster, s.ID.Key, s.ID.Epoch, o.Name),
			Deadline: 5 * time.Minute,
		}
		for _, p := range o.Peers {
			r.Parties = append(r.Parties, tss.PartyID(p.ID))
		}
		if len(r.Parties) != s.M {
			return nil, fmt.Errorf("drill: %d operators for key %s, which %d sign", len(r.Parties), s.ID.Key, s.M)
		}
		r.Session = tss.SessionName(r)
		rs = append(rs, r)
	}
	return rs, nil
}

// drillKeystore puts the KeyShares into a keystore of its own whose passphrase
// nobody knows: when the process ends, nothing on disk opens any more. They are
// staged and not marked: a test signature is all they may make.
func (c *backupContent) drillKeystore(dir string, h BackupHeader, o DrillOptions) (*keystore.Keystore, error) {
	pass := make([]byte, 32)
	if _, err := rand.Read(pass); err != nil {
		return nil, err
	}
	defer clear(pass)
	ks, err := keystore.Init(filepath.Join(dir, "keystore"), pass, keystore.Options{Node: h.Node, TestWorkFactor: o.testWorkFactor})
	if err != nil {
		return nil, err
	}
	for _, s := range c.Shares {
		if err := ks.StageKeyShare(s); err != nil {
			return nil, errors.Join(err, ks.Close())
		}
	}
	return ks, nil
}
