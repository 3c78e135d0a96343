//go:build unix

package preparams

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
)

// Comparison holds CPU seconds per set of pre-parameters, measured in turn in
// one run so that both sides see the same machine.
type Comparison struct {
	Ours    []float64 `json:"ours"`
	Library []float64 `json:"library"`
	Ratio   float64   `json:"ratio"` // mean of ours ÷ mean of the library's
}

// Compare makes ours and library sets in turn and reports the process's CPU
// time for each. Other work of the process would be counted too, so it is for
// a process that does nothing else.
func Compare(ctx context.Context, ours, library int) (Comparison, error) {
	var c Comparison
	if ours < 1 || library < 1 {
		return c, errors.New("compare generators: want at least one set of each")
	}
	for i := range max(ours, library) {
		// Spread the longer series evenly over the shorter.
		for i*ours/max(ours, library) >= len(c.Ours) && len(c.Ours) < ours {
			s, err := cpuOf(func() error { _, err := Generate(ctx, 0, nil); return err })
			if err != nil {
				return c, fmt.Errorf("our pre-parameters: %w", err)
			}
			c.Ours = append(c.Ours, s)
		}
		for i*library/max(ours, library) >= len(c.Library) && len(c.Library) < library {
			s, err := cpuOf(func() error {
				_, err := keygen.GeneratePreParamsWithContext(ctx)
				return err
			})
			if err != nil {
				return c, fmt.Errorf("library's pre-parameters: %w", err)
			}
			c.Library = append(c.Library, s)
		}
	}
	c.Ratio = mean(c.Ours) / mean(c.Library)
	return c, nil
}

func mean(xs []float64) float64 {
	var sum float64
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// cpuOf runs f and returns the CPU seconds the process spent meanwhile.
func cpuOf(f func() error) (float64, error) {
	before, err := CPUSeconds()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := CPUSeconds()
	return after - before, err
}

// CPUSeconds returns the CPU time that this process and its children that have
// ended used so far.
func CPUSeconds() (float64, error) {
	var sum float64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		for _, t := range []syscall.Timeval{u.Utime, u.Stime} {
			sum += float64(t.Sec) + float64(t.Usec)/1e6
		}
	}
	return sum, nil
}
