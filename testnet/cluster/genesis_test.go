package cluster

import (
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
)

// smallGenesis is a genesis of four members, of whom the node in dir is one.
func smallGenesis(t *testing.T, dir string) ledger.Genesis {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "identity.pub"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	members := []ledger.Member{{ID: ledger.MemberID(own), Name: "n1", Operator: "o1", Addr: "/ip4/127.0.0.1/tcp/1"}}
	for i := 2; i <= 4; i++ {
		key := ed25519.NewKeyFromSeed(slices.Repeat([]byte{byte(i)}, ed25519.SeedSize))
		n := strconv.Itoa(i)
		members = append(members, ledger.Member{ID: ledger.MemberID(key.Public().(ed25519.PublicKey)), Name: "n" + n, Operator: "o" + n, Addr: "/ip4/127.0.0.1/tcp/" + n})
	}
	slices.SortFunc(members, func(a, b ledger.Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return ledger.Genesis{
		Version: 1, Name: "test", Brand: "test", Millis: 1, Params: ledger.DefaultParams(),
		Epoch: ledger.Epoch{Members: members, F: 1, M: 3, FactQuorum: 3},
	}
}

func writeNode(t *testing.T, dir string, g ledger.Genesis) {
	t.Helper()
	if err := node.SaveGenesis(dir, g); err != nil {
		t.Fatal(err)
	}
	c := node.Config{
		Dir: dir, Listen: "/ip4/127.0.0.1/tcp/0", API: "127.0.0.1:0",
		Prices: []string{"http://127.0.0.1:1/a", "http://127.0.0.1:1/b", "http://127.0.0.1:1/c"},
	}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
}
