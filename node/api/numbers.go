package api

import (
	"strconv"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
)

// numbers are the bound that a refused command hit and what was found against
// it, as far as the view tells: a refusal left nothing but the Intent nonce, so
// the view after it is the one it was judged on. ahead: the nonce is not due
// yet and will be.
func (v view) numbers(c *address.Command, code ledger.Code) (limit, found string, ahead bool) {
	acc, _ := v.account(accountID(c))
	switch code {
	case ledger.WrongCluster:
		return v.ClusterName(), c.Cluster, false
	case ledger.Expired:
		return stamp(int64(v.Time())), stamp(c.Expires), false
	case ledger.ExpiryTooFar:
		return stamp(int64(v.Time() + v.Params.ExpirySeconds)), stamp(c.Expires), false
	case ledger.BadNonce:
		return strconv.FormatUint(acc.Nonce, 10), strconv.FormatUint(c.Nonce, 10), c.Nonce > acc.Nonce
	}
	limit, found = v.RefusalNumbers(c, code)
	return limit, found, false
}

// stamp is Unix seconds as request texts write them.
func stamp(unix int64) string { return at(uint64(unix) * 1000).Format("2006-01-02T15:04:05Z") }
