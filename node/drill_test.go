package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

// freeAddr is a loopback multiaddr nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
}

// Three of four operators prove from their backups alone, over the network, that
// they could sign; two are too few, and whoever has another name for the drill is
// waited for in vain. Seen failing with three signatures, one of them under
// another name, when the name was not signed.
func TestDrill(t *testing.T) {
	d := newDeposit(t, false)
	to, by := cheap(t, backupPass)
	var files, addrs []string
	for i := range 3 {
		files = append(files, filepath.Join(t.TempDir(), "b"))
		addrs = append(addrs, freeAddr(t))
		if _, err := Backup(d.dirs[i], files[i], []byte("p"), to); err != nil {
			t.Fatal(err)
		}
	}
	hold := func(wait time.Duration, names ...string) ([]DrillResult, []error) {
		results, errs := make([]DrillResult, len(names)), make([]error, len(names))
		done := make(chan struct{})
		for i := range names {
			go func() {
				defer func() { done <- struct{}{} }()
				o := DrillOptions{Listen: addrs[i], Name: names[i], Wait: wait, Log: quietLog, testWorkFactor: 4}
				for j := range names {
					if j != i {
						o.Peers = append(o.Peers, p2p.Peer{ID: p2p.ID(idOf(d.keys[j])), Addr: addrs[j], Role: p2p.Member})
					}
				}
				results[i], errs[i] = Drill(context.Background(), files[i], o, by)
			}()
		}
		for range names {
			<-done
		}
		return results, errs
	}
	results, errs := hold(time.Minute, "may", "may", "may")
	for i, r := range results {
		if errs[i] != nil {
			t.Fatalf("operator %d: %v", i, errs[i])
		}
		if r.Epoch != 4 || r.N != 4 || len(r.Took) != 3 || len(r.Keys) != 1 {
			t.Errorf("operator %d: %+v", i, r)
			continue
		}
		b, err := hex.DecodeString(r.Keys[0].Signature)
		if err != nil || len(b) != 64 {
			t.Fatal(r, err)
		}
		sig := tss.Signature{R: [32]byte(b[:32]), S: [32]byte(b[32:])}
		if err := tss.Verify(tss.Ed25519, d.pub, [32]byte{}, drilled(d.g.Hash(), sol.ID, 4, "may"), sig); err != nil {
			t.Error(err)
		}
		if !ledger.VerifyKey(ledger.CurveEd25519, d.pub, ledger.DrillMessage(d.g.Hash(), sol.ID, 4, "may"), b) {
			t.Error("the ledger would not take what the drill signed")
		}
	}
	if _, errs := hold(time.Second, "june", "june"); errs[0] == nil || !strings.Contains(errs[0].Error(), "2 operators") {
		t.Errorf("two of the three needed: %v", errs[0])
	}
	_, errs = hold(2*time.Second, "july", "july", "Juli")
	for i := range errs {
		if errs[i] == nil || !strings.Contains(errs[i].Error(), "not-joined") {
			t.Errorf("operator %d: %v", i, errs[i])
		}
	}
	// Held again under its name, a failed drill would join its sessions twice.
	// Seen failing without useDrillName: "operator 0 joins again: <nil>".
	_, errs = hold(2*time.Second, "july", "july", "july")
	for i, err := range errs[:2] {
		if !errors.Is(err, ErrDrillName) {
			t.Errorf("operator %d joins again: %v", i, err)
		}
	}
}

// refresh has all four operators deal the key anew for epoch 5. Each keystore is
// left as its ledger had it then: in that epoch, or 4, or 6, which is a rollback to
// the key shares of 4.
func (d deposit) refresh(t *testing.T, epochs ...uint64) {
	t.Helper()
	var parties []tss.PartyID
	var stores []*keystore.Keystore
	var signers []*tss.Signer
	net := tss.NewLoopback()
	for i, key := range d.keys {
		ks, _, err := openKeystore(d.dirs[i], []byte("p"), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ks.Close()
		id := tss.PartyID(idOf(key))
		s, err := tss.New(tss.Config{Identity: key, Cluster: d.g.Hash(), Keystore: ks, Transport: net.Node(id), JoinWait: 20 * time.Second, SilenceMin: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		net.Attach(id, s)
		parties, stores, signers = append(parties, id), append(stores, ks), append(signers, s)
	}
	r := tss.Request{
		Cluster: d.g.Hash(), Kind: tss.Reshare, Key: sol, Epoch: 5, Try: 1, Batch: 2, Parties: parties, M: 3,
		From: tss.Generation{Epoch: 4, Try: 1, M: 3, Pub: d.pub, Holders: parties[:3]},
	}
	r.Session = tss.SessionName(r)
	var wg sync.WaitGroup
	for i, s := range signers {
		wg.Go(func() {
			if _, err := s.Reshare(context.Background(), r); err != nil {
				t.Errorf("operator %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	older, newer := keystore.ShareID{Key: sol.ID, Epoch: 4, Try: 1}, keystore.ShareID{Key: sol.ID, Epoch: 5, Try: 1}
	for i, ks := range stores {
		f := inForce{Epoch: epochs[i], Height: 100 * epochs[i], Shares: []keystore.ShareID{older}}
		err := ks.Put(inForceName, ledger.Marshal(f))
		switch f.Epoch {
		case 5:
			f.Shares = []keystore.ShareID{newer}
			err = errors.Join(ks.Activate(newer), ks.Retire(older), ks.Put(inForceName, ledger.Marshal(f)))
		case 6:
			err = errors.Join(err, ks.Activate(newer), ks.Retire(older), ks.Retire(newer))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// After a rollback operators prove what the cluster signs with, the older key shares,
// whatever else their backups hold, and a seat is restored to those; who has a backup
// of the epoch that was left holds up the drill and is told the epochs. Seen failing
// with the newest key shares taken for those in force: by Backup ("operator 0"), by
// Drill ("of epoch 5, in force by this backup") and by Restore ("epoch 4 is retired").
func TestDrillAfterRollback(t *testing.T) {
	d := newDeposit(t, false)
	d.refresh(t, 6, 6, 5, 4) // the third and the fourth were stopped before it
	to, by := cheap(t, backupPass)
	files, addrs := make([]string, 4), make([]string, 4)
	for i, want := range []string{"6 since 600: 4 ", "6 since 600: 4 ", "5 since 500: (4) 5 ", "4 since 400: 4 (5) "} {
		files[i], addrs[i] = filepath.Join(t.TempDir(), "b"), freeAddr(t)
		h, err := Backup(d.dirs[i], files[i], []byte("p"), to)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%d since %d: ", h.Epoch, h.Height)
		for _, k := range h.Keys {
			if k.InForce {
				got += fmt.Sprintf("%d ", k.Epoch)
			} else {
				got += fmt.Sprintf("(%d) ", k.Epoch)
			}
		}
		if got != want {
			t.Errorf("operator %d: %s, want %s", i, got, want)
		}
	}
	hold := func(name string, wait time.Duration, who ...int) ([]DrillResult, error) {
		results, errs := make([]DrillResult, len(who)), make([]error, len(who))
		var wg sync.WaitGroup
		for x, i := range who {
			o := DrillOptions{Listen: addrs[i], Name: name, Wait: wait, Log: quietLog, testWorkFactor: 4}
			for _, j := range who {
				if j != i {
					o.Peers = append(o.Peers, p2p.Peer{ID: p2p.ID(idOf(d.keys[j])), Addr: addrs[j], Role: p2p.Member})
				}
			}
			wg.Go(func() { results[x], errs[x] = Drill(context.Background(), files[i], o, by) })
		}
		wg.Wait()
		return results, errors.Join(errs...)
	}
	results, err := hold("may", 30*time.Second, 0, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		b, err := hex.DecodeString(r.Keys[0].Signature)
		if err != nil || r.N != 4 || len(r.Keys) != 1 || r.Keys[0].Epoch != 4 {
			t.Fatalf("signed with epoch %d: %+v %v", r.Keys[0].Epoch, r, err)
		}
		if !ledger.VerifyKey(ledger.CurveEd25519, d.pub, ledger.DrillMessage(d.g.Hash(), sol.ID, 4, "may"), b) {
			t.Error("the ledger would not take what the drill signed")
		}
	}
	if _, err := hold("june", 2*time.Second, 0, 1, 2); err == nil || !strings.Contains(err.Error(), "of epoch 4, in force by this backup") || !strings.Contains(err.Error(), "of epoch 5, in force by this backup") {
		t.Errorf("one of them before the rollback: %v", err)
	}

	o := RestoreOptions{Dir: filepath.Join(t.TempDir(), "new"), Passphrase: []byte("q"), Witnesses: []Witness{{From: "n2", Cluster: d.g.ClusterName(), Epoch: 5}}, testWorkFactor: 4}
	if _, err := Restore(files[3], o, by); err != nil {
		t.Fatal(err)
	}
	ks, _, err := openKeystore(o.Dir, []byte("q"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ks.Close()
	states, err := ks.ShareStates()
	if err != nil || len(states) != 2 {
		t.Fatal(states, err)
	}
	for id, state := range states {
		if want := map[uint64]keystore.ShareState{4: keystore.Active, 5: keystore.Staged}[id.Epoch]; state != want {
			t.Errorf("epoch %d is %s, want %s", id.Epoch, state, want)
		}
	}
	if mark, _, err := ks.Restored(); err != nil || mark.Epoch != 4 || len(mark.Shares) != 2 {
		t.Errorf("mark %+v, %v", mark, err)
	}
}
