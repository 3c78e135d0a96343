// Package child owns the supervised processes in which signing sessions compute
// (spec: signing §8.1): it starts them, keeps some warm, exchanges frames with
// them over pipes, kills and reaps them.
//
// It promises that a child has an empty environment, opens no file and no
// socket, leaves no core dump, stays below a memory limit and does not outlive
// its parent or its session; and that what a child wrote before it died is read.
// What the frames mean is its caller's business.
package child
