// Package alert owns the webhooks of one node's operator: rules over the public
// figures of the ledger, and their delivery.
//
// It promises that a rule does not flap, that what it posts is signed and holds
// public figures only, and that an endpoint that is slow, failing or gone costs
// its own alerts and nothing else: no call here is waited for by the node.
//
// It leaves truth to the ledger and delivery to best effort: an alert that could
// not be delivered is counted and dropped. Whoever must not miss anything reads
// the events of the API, which resume.
package alert
