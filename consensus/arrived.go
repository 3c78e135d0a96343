package consensus

import "github.com/hashicorp/raft"

// maxArrived is how many raft entries wait to be announced: raft's own window
// of entries in one request.
const maxArrived = maxAppendEntries

// arrivals are the commands of entries on their way into the log.
type arrivals chan []byte

// tell notes an entry, if there is room: the log's writer waits for nobody. It
// comes before the disk, whose time is the App's head start.
func (a arrivals) tell(l *raft.Log) {
	if l.Type != raft.LogCommand {
		return
	}
	select {
	case a <- l.Data:
	default:
	}
}

// announce tells the App what has arrived.
func (c *Consensus) announce() {
	for {
		select {
		case entry := <-c.arrived:
			if c.cfg.Arrived != nil {
				c.cfg.Arrived(commands(entry))
			}
		case <-c.ctx.Done():
			return
		}
	}
}
