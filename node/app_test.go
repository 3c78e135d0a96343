package node

import (
	"bytes"
	"testing"

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
