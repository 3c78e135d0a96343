package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss"
	"github.com/prometheus/client_golang/prometheus"
)

// Who spoils sessions is counted, proven apart from suspected, and shown to
// operators; the envelopes that show it are kept once, with a limit. Seen failing
// with "301 files, want 256" without the limit.
func TestBlameIsCountedAndEvidenceKept(t *testing.T) {
	n := &Node{
		cfg: Config{Dir: t.TempDir()}, log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()),
		blames: map[ledger.MemberID]blamed{}, cases: map[caseKey]*heldCase{},
	}
	var err error
	if n.app, err = newApp(running(t).s.Genesis, nil); err != nil {
		t.Fatal(err)
	}
	liar, slow := tss.PartyID{1}, tss.PartyID{2}
	n.noteBlame(errors.New("no blame"), tss.Request{})
	for range 3 {
		n.noteBlame(fmt.Errorf("turn: %w", &tss.Blame{Culprits: []tss.PartyID{slow}, Reason: tss.Silent}), tss.Request{})
	}
	for range 2 { // the same envelope twice
		n.noteBlame(&tss.Blame{Culprits: []tss.PartyID{liar}, Proven: true, Reason: tss.Malformed, Check: "S1", Evidence: [][]byte{[]byte("e")}}, tss.Request{})
	}
	got := n.blameList()
	if len(got) != 2 || got[0]["proven"] != uint64(2) || got[0]["suspected"] != uint64(0) || got[0]["last"] != "malformed S1" ||
		got[1]["proven"] != uint64(0) || got[1]["suspected"] != uint64(3) {
		t.Errorf("%v", got)
	}
	files := func() int {
		fs, err := os.ReadDir(filepath.Join(n.cfg.Dir, "evidence"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			if i, err := f.Info(); err != nil || i.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", f.Name(), i.Mode(), err)
			}
		}
		return len(fs)
	}
	if files() != 1 {
		t.Errorf("%d files, want one", files())
	}
	for i := range 300 {
		n.noteBlame(&tss.Blame{Culprits: []tss.PartyID{liar}, Proven: true, Reason: tss.Malformed, Evidence: [][]byte{{byte(i), byte(i >> 8)}}}, tss.Request{})
	}
	if files() != maxEvidence {
		t.Errorf("%d files, want %d", files(), maxEvidence)
	}
}
