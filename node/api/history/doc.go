// Package history owns what one node remembers of the log: for every command
// that had an effect, its LogIndex, ledger time, code, request and effects.
//
// It promises that the ledger never waits for it and never stops for it: a full
// disk, a damaged file or a reader that asks too much cost history and nothing
// else. What it holds is the same on every node for one LogIndex, and a command
// that raft replays after a restart is remembered once.
//
// It leaves truth to the ledger: history is a convenience of at most
// MaxSegments files, and every answer says from which LogIndex on it is whole.
// See DESIGN.md.
package history
