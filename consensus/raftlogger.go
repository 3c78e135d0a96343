package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newRaftLogger sends raft's lines to log, one level down: a follower that is
// away is raft's ERROR and our ordinary day.
func newRaftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(raftLines{log})
	return l
}

// missingEntry is what raft says when a follower is told of an entry that is still on its way.
const missingEntry = "failed to get previous log"

type raftLines struct{ log *slog.Logger }

func (r raftLines) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Warn:
		if msg != missingEntry {
			to = slog.LevelInfo
		}
	case hclog.Info:
	default:
		return // raft's DEBUG is for those who work on raft
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	r.log.Log(context.Background(), to, "raft: "+msg, args...)
}
