// Command coffer is the whole of Coffer in one binary: the node, the local test
// network, and a client for any node's API.
//
// It promises stable exit codes (below), one JSON document on the last line of
// standard output with --json, and that nothing is signed which was not shown.
// Decisions are left to the packages it calls.
//
// Exit codes: 0 done; 1 refused, or failed; 2 used wrongly; 4 posted, but the
// outcome is not known yet (ask again: a text counts once); 130 interrupted.
package main
