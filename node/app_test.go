package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coffer-network/coffer/ledger"
)

// What a snapshot wrote is adopted whole; another cluster's state, one byte more
// or one byte less is not.
func TestSnapshotOfTheApp(t *testing.T) {
	c := running(t)
	a := &app{state: c.s, changed: make(chan struct{})}
	s, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	fresh, err := newApp(c.s.Genesis, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := fresh.Decode(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if body.Height() != c.s.Height || body.Head() != c.s.Head {
		t.Errorf("height %d, head %s", body.Height(), body.Head())
	}
	body.Adopt()
	if v, _ := fresh.now(); string(ledger.Marshal(v)) != string(ledger.Marshal(c.s)) {
		t.Error("another state was adopted")
	}
	for name, stream := range map[string][]byte{
		"a byte more": append(bytes.Clone(b.Bytes()), 0),
		"a byte less": b.Bytes()[:b.Len()-1],
		"nothing":     nil,
	} {
		if _, err := fresh.Decode(bytes.NewReader(stream)); err == nil {
			t.Errorf("%s: adopted", name)
		}
	}
	other := c.s.Genesis
	other.Millis++
	stranger, err := newApp(other, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Decode(bytes.NewReader(b.Bytes())); err == nil {
		t.Error("a state of another cluster was adopted")
	}
}

// A command that operators struck out is not executed, where its height, its bytes and
// the signatures agree. What ends the process while it is applied is named at the next start.
//
// Seen failing with the signatures not looked at, and with no trail.
func TestStruckCommand(t *testing.T) {
	c := running(t)
	tx := []byte("what ends every process")
	st, err := ledger.ParseStrike(c.s.Cluster, fmt.Sprintf("%d:%x", c.s.Height+1, sha256.Sum256(tx)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Strikes: []StrikeConfig{{Command: st.String()}}}
	for i, k := range c.keys {
		s := st.Sign(k)
		if i < c.s.Epoch().Q() {
			cfg.Strikes[0].Signatures = append(cfg.Strikes[0].Signatures, fmt.Sprintf("%s:%x", s.Member, s.Sig))
		}
	}
	name := filepath.Join(t.TempDir(), "applying")
	codes := func(cfg Config) (codes []ledger.Code) {
		t.Helper()
		a := &app{state: c.s.Frozen().View(), judges: newVerifier(1, prometheus.NewRegistry()), changed: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
		defer a.judges.close()
		var unfinished string
		var err, err1 error
		a.strikes, err = cfg.strikes(c.s.Cluster)
		a.trail, unfinished, err1 = openTrail(name)
		if err := errors.Join(err, err1); err != nil || unfinished != "" {
			t.Fatalf("%q, %v", unfinished, err)
		}
		defer a.trail.close()
		for _, r := range a.Apply([][]byte{tx, tx}) {
			codes = append(codes, r.Code)
		}
		return codes
	}
	if got := codes(cfg); !slices.Equal(got, []ledger.Code{ledger.Broken, ledger.Malformed}) {
		t.Errorf("struck: %v", got)
	}
	cfg.Strikes[0].Signatures = cfg.Strikes[0].Signatures[1:]
	if got := codes(cfg); !slices.Equal(got, []ledger.Code{ledger.Malformed, ledger.Malformed}) {
		t.Errorf("without Q signatures: %v", got)
	}

	tr, _, err := openTrail(name)
	if err != nil {
		t.Fatal(err)
	}
	tr.begins(st.Height, tx)
	tr.close()
	tr, unfinished, err := openTrail(name)
	if err != nil || unfinished != st.String() {
		t.Errorf("after a process that ended: %q, %v", unfinished, err)
	}
	tr.close()
	for _, bad := range []StrikeConfig{{Command: "12"}, {Command: st.String(), Signatures: []string{"00:11"}}, {Command: st.String(), Signatures: make([]string, maxStrikeSignatures+1)}} {
		if _, err := (Config{Strikes: []StrikeConfig{bad}}).strikes(c.s.Cluster); err == nil {
			t.Errorf("%+v is read", bad)
		}
	}
}
