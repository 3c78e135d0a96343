package sim

import (
	"flag"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 2, "random runs besides the fixed one")
	first = flag.Uint64("seed", 1, "first seed of them")
	steps = flag.Int("steps", 600, "steps of a run, before it comes to rest")
)

func TestSim(t *testing.T) {
	for i := range *seeds + 1 {
		seed := uint64(20_26)
		if i > 0 {
			seed = *first + uint64(i) - 1
		}
		start := time.Now()
		r, err := Run(Config{Seed: seed, Steps: *steps})
		t.Log(r, r.Codes, time.Since(start).Round(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
	}
}
