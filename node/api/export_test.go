package api

import (
	"maps"
	"slices"

	"github.com/coffer-network/coffer/ledger"
)

// AllCodes are those that an answer may carry: the ledger's and the API's own.
func AllCodes() []ledger.Code { return slices.Sorted(maps.Keys(advice)) }

// StatusOf is the table from codes to HTTP.
func StatusOf(code string) int { return statusOf(ledger.Code(code)) }
