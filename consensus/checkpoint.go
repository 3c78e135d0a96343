package consensus

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger"
)

// Checkpoint is a head that other operators told the one of this node: the chain it
// follows has to hold it (spec: consensus R6).
//
// From the genesis file a node believes one set of members after the other, each by
// the certificate of the one before. Members who left long ago and whose keys were
// then sold could certify another history to whoever begins there; they cannot
// change what an honest operator reads off his own node today. A head covers every
// command before it, and so the members: nothing else has to be told.
type Checkpoint struct {
	Height uint64
	Head   ledger.Hash
}

// MaxCheckpoints is more than any committee has operators to ask.
const MaxCheckpoints = 16

// ErrCheckpoint: this node's chain is not the one of a checkpoint.
var ErrCheckpoint = errors.New("another history than the operator's checkpoint says")

// String is HEIGHT:HEAD.
func (p Checkpoint) String() string { return fmt.Sprintf("%d:%s", p.Height, p.Head) }

// MarshalText writes HEIGHT:HEAD, the head in hex.
func (p Checkpoint) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads HEIGHT:HEAD.
func (p *Checkpoint) UnmarshalText(b []byte) error {
	height, head, _ := strings.Cut(string(b), ":")
	n, err := strconv.ParseUint(height, 10, 64)
	h, err1 := hex.DecodeString(head)
	if err != nil || err1 != nil || n == 0 || len(h) != len(p.Head) {
		return fmt.Errorf("checkpoint %q: want HEIGHT:HEAD, as coffer status of another operator's node shows it", b)
	}
	p.Height, p.Head = n, ledger.Hash(h)
	return nil
}

// against compares headers in order with the checkpoints among them.
func (c *Consensus) against(hs []ledger.Header) error {
	if len(hs) == 0 {
		return nil
	}
	for _, p := range c.cfg.Checkpoints {
		if p.Height < hs[0].Height || p.Height > hs[len(hs)-1].Height {
			continue
		}
		if head := hs[p.Height-hs[0].Height].Head(); head != p.Head {
			return fmt.Errorf("%w: %s at height %d, told was %s", ErrCheckpoint, head, p.Height, p.Head)
		}
	}
	return nil
}

// ahead is the height of the last checkpoint that this node's chain has not reached, or 0.
// Until then it may follow a history that was made up.
func (c *Consensus) ahead() (height uint64) {
	at := c.now().Height
	for _, p := range c.cfg.Checkpoints {
		if p.Height > at {
			height = max(height, p.Height)
		}
	}
	return height
}
