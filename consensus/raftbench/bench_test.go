package raftbench

import (
	"testing"
	"time"
)

func TestRunCountsAnsweredCommands(t *testing.T) {
	n, err := Run(t.TempDir(), 8, 256, 200*time.Millisecond)
	if err != nil || n < 8 {
		t.Errorf("%d commands in 200 ms, %v: want at least one of each client", n, err)
	}
}
