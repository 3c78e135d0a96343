// Package fixed is the arithmetic of amounts: unsigned integers below 2¹²⁸
// (Int), sums and products of them below 2²⁵⁶ (Wide), and a calculator that
// keeps the first error (Calc) so that a formula reads as it is specified.
//
// It promises that nothing wraps, truncates or divides by zero unseen: every
// operation is exact, rounds in the direction its name says, or returns an
// error. A product divided by a third number is one step with a 512-bit
// intermediate.
//
// What a number means, and which direction is against the actor, is left to
// package ledger (spec: lending §2).
package fixed
