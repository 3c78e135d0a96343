package consensus

import "github.com/coffer-network/coffer/ledger"

// ablation names rules that a test of this package switches off, to see that the
// claim of spec consensus §6.3 fails without them. Nothing else can set it.
type ablation struct {
	quorum   int  // approvals that make a certificate; 0: Epoch.Q
	ancestry bool // a promise is kept by its height alone
	fence    bool // raft sees every request, and the store deletes what raft says
	unproven bool // an installed state is believed at once
}

func (c *Consensus) quorum(e ledger.Epoch) int {
	if c.cfg.off.quorum > 0 {
		return c.cfg.off.quorum
	}
	return e.Q()
}
