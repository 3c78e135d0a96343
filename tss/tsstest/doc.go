// Package tsstest gives the tests of other packages KeyShares without the half
// minute a keygen takes: dealt keys, made with pre-parameters that lie in this
// repository for everyone to read. It panics outside of tests.
package tsstest
