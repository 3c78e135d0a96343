// Package venues owns how public markets are asked for a price: one adapter for
// each venue's ticker, and one for a plain price server such as the testnet's.
// It promises that an answer is of the asset that was asked for, of the last
// minute, positive and exact, or an error; it decides nothing about what several
// venues' answers come to.
//
// What a venue's answer is dated by: Coinbase Exchange by its last trade,
// Bitstamp and the price server by their own clock; Kraken's ticker has no time
// and is dated by the Date header of the answer, or without one by the time of
// asking.
package venues
