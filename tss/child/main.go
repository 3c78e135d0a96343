package child

import (
	"fmt"
	"os"
	"runtime/debug"
)

// Argument as the first one makes a binary a child: coffer tss-child.
const Argument = "tss-child"

const (
	// softMemory makes the collector work harder before the hard limit ends the
	// child. A signature needs about 20 MiB, a keygen of ten about 100.
	softMemory = 384 << 20
	// hardMemory is what a child may map beyond what it has when it starts.
	hardMemory = 1 << 30
	// collectPercent: a child is short-lived and small, so it collects less
	// often than a node would, which saves CPU.
	collectPercent = 400
)

// hello is the first frame of a child: both sides must be the same program.
const hello = "coffer tss-child 1"

// Main is the child's side: it gives up what a child must not have and serves
// the frames of its parent. It returns when serve does. When the parent is gone
// the process ends at once, whatever it is doing.
func Main(serve func(next func() []byte, reply func([]byte) error) error) error {
	debug.SetGCPercent(collectPercent)
	debug.SetMemoryLimit(softMemory)
	if err := harden(); err != nil {
		return fmt.Errorf("harden child: %w", err)
	}
	frames := make(chan []byte, 1)
	go func() {
		for {
			b, err := ReadFrame(os.Stdin)
			if err != nil {
				os.Exit(0) // the parent closed the pipe or died; secrets die with us
			}
			frames <- b
		}
	}()
	reply := func(b []byte) error { return WriteFrame(os.Stdout, b) }
	if err := reply([]byte(hello)); err != nil {
		return err
	}
	return serve(func() []byte { return <-frames }, reply)
}
