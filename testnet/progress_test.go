package testnet

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := NewProgress(&out)

		build := p.Begin("build btcd", Size{Expected: 15 * time.Second})
		time.Sleep(25 * time.Second)
		synctest.Wait()
		build.End(nil)
		build.End(errors.New("counted once"))

		keys := p.Begin("pre-params", Size{Total: 4})
		keys.Add(1)
		time.Sleep(12 * time.Second)
		synctest.Wait()
		keys.End(errors.New("no entropy"))

		p.Begin("something", Size{}).End(nil)

		want := `build btcd, about 15s left
build btcd: 10s, about 5s left
build btcd: 20s, longer than the usual 15s
build btcd: done in 25s
pre-params, 0 of 4
pre-params: 10s, 1 of 4, about 30s left
pre-params: failed after 12s
something
something: done in 0s
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", &out, want)
		}
	})
}

// A bar must not claim the end before it came, and must let another task's lines through.
func TestProgressBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{w: &out, terminal: true}
		for _, size := range []Size{{Total: 2}, {Expected: time.Second}, {}} {
			bar := p.Begin("work", size)
			bar.Add(2)
			other := p.Begin("other", Size{})
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if drawn := p.bar.draw; size != (Size{}) && drawn.IsFinished() {
				t.Errorf("%v: the bar finished by itself", size)
			}
			other.End(nil)
			bar.End(nil)
			if !bytes.HasSuffix(out.Bytes(), []byte("work: done in 3s\n")) || !bytes.Contains(out.Bytes(), []byte("other: done in 3s\n")) {
				t.Errorf("%v:\n%q", size, &out)
			}
			out.Reset()
		}
	})
}
