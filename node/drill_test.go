package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
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
