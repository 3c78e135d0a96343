package ethereum

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
)

// What a client hands to eth_signTypedData_v4 hashes, by the library that
// wallets and nodes of Ethereum use, to the digest that the ledger judges by.
// It is here because ledger/address must not import that library, in tests
// either: its signature code differs with cgo.
func TestTypedDataOfRequests(t *testing.T) {
	raw, err := os.ReadFile("../../ledger/address/testdata/eip712.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct{ Text, Wallet, TypedData, Digest string }
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) == 0 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		var data apitypes.TypedData
		if err := json.Unmarshal([]byte(r.TypedData), &data); err != nil {
			t.Errorf("%s: %v", r.Text, err)
			continue
		}
		digest, _, err := apitypes.TypedDataAndHash(data)
		if err != nil || hexutil.Encode(digest) != r.Digest {
			t.Errorf("%s: %s %x, want %s: %v", data.PrimaryType, r.Text, digest, r.Digest, err)
		}
	}
}
