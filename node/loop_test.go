package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Plants a loop that stands still in its first life, whether it heeds the end of
// its context or not, and works in the second: it is restarted once and counted;
// one that advances is left alone. Seen failing with a loop that is taken for
// ended: "the second life never came".
func TestALoopThatStandsStillIsRestarted(t *testing.T) {
	for name, deaf := range map[string]bool{"heeds": false, "deaf": true} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			n := &Node{
				log: slog.New(slog.DiscardHandler), metrics: newMetrics(reg), started: time.Now(),
				pace: pace{stall: 50 * time.Millisecond, look: 5 * time.Millisecond, farewell: 20 * time.Millisecond},
			}
			ctx, stop := context.WithCancel(t.Context())
			var lives atomic.Int64
			second, released, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				n.supervise(ctx, "test", func(ctx context.Context, advanced func()) {
					if lives.Add(1) == 1 {
						if deaf {
							<-released
						}
						<-ctx.Done()
						return
					}
					if lives.Load() == 2 {
						close(second)
					}
					for ctx.Err() == nil {
						advanced()
						time.Sleep(time.Millisecond)
					}
				})
			}()
			select {
			case <-second:
			case <-time.After(10 * time.Second):
				t.Fatal("the second life never came")
			}
			time.Sleep(200 * time.Millisecond)
			stop()
			close(released)
			<-done
			n.wg.Wait()
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			counted := 0.0
			for _, f := range families {
				if f.GetName() == "coffer_loop_restarts_total" {
					counted = f.GetMetric()[0].GetCounter().GetValue()
				}
			}
			if counted != 1 || lives.Load() != 2 {
				t.Errorf("%v restarts counted, %d lives", counted, lives.Load())
			}
		})
	}
}
