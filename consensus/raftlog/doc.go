// Package raftlog keeps raft's log, term and vote in Badger.
//
// It promises that what a call stored before it returned survives a crash and a
// loss of power, that the log is one contiguous run of entries at every moment
// a crash can choose, and that after a failed write nothing is written any more.
// What the entries mean, and which may be deleted, is its caller's affair.
package raftlog
