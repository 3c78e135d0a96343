package tss_test

import (
	"testing"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// BenchmarkSign holds the limits of spec signing §13 over the bare library.
func BenchmarkSign(b *testing.B) {
	const n, m = 4, 3
	for b.Loop() {
		r, err := tss.Bench(b.Context(), n, m, 6, tsstest.PreParams(n))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(r.CPURatio, "cpu-ratio")
		b.ReportMetric(r.WallRatio, "wall-ratio")
		b.ReportMetric(float64(r.Bytes)/(m-1), "bytes/party/peer")
		if r.CPURatio > 1.15 {
			b.Errorf("CPU of ours ÷ library = %.3f, limit 1.15", r.CPURatio)
		}
		if limit := uint64(13_500 * (m - 1)); r.Bytes > limit {
			b.Errorf("%d bytes sent per party, limit %d", r.Bytes, limit)
		}
	}
}

func TestBenchComparesBothSides(t *testing.T) {
	r, err := tss.Bench(t.Context(), 2, 2, 1, tsstest.PreParams(2))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.CPU) != 1 || len(r.RawCPU) != 1 || r.CPURatio <= 0 || r.WallRatio <= 0 || r.Bytes == 0 || r.Bytes > 13_500 {
		t.Errorf("%+v", r)
	}
}
