// Package cluster tests Coffer as an operator meets it: real processes of the
// real binary on loopback, real chain nodes, signals and kills. It holds tests
// alone.
package cluster
