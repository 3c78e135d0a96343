package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node"
)

func testGenesis() ledger.Genesis {
	g := ledger.Genesis{
		Version: 1, Name: "test", Brand: "test", Millis: 7, Params: ledger.DefaultParams(),
		Epoch:  ledger.Epoch{F: 1, M: 3, FactQuorum: 3},
		Chains: []ledger.ChainParam{{Name: "eth", CAIP2: "eip155:1", MinRate: 1, MaxRate: 2, Float: fixed.MustParse("340282366920938463463374607431768211455")}},
	}
	for i, n := range []string{"a", "b", "c", "d"} {
		g.Epoch.Members = append(g.Epoch.Members, ledger.Member{ID: ledger.MemberID{byte(i + 1)}, Name: n, Operator: "o-" + n})
	}
	return g
}

func genesisCmd(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCmd()
	root.SetOut(&out)
	root.SetArgs(append([]string{"node", "genesis"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// What is shown makes the same bytes again, in whatever order members are listed.
func TestGenesisText(t *testing.T) {
	dir, again := t.TempDir(), t.TempDir()
	g := testGenesis()
	if err := node.SaveGenesis(dir, g); err != nil {
		t.Fatal(err)
	}
	text, err := genesisCmd(t, "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(again, "genesis.toml")
	parts := strings.SplitAfter(text, "[[Epoch.Members]]")
	slices.Reverse(parts[2:4]) // two members change places
	if err := os.WriteFile(file, []byte(strings.Join(parts, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := genesisCmd(t, "--from", file, "--dir", again)
	if err != nil || !strings.Contains(said, g.ClusterName()) {
		t.Fatalf("make: %v\n%s", err, said)
	}
	made, err := node.LoadGenesis(again)
	if err != nil || made.Hash() != g.Hash() {
		t.Errorf("another genesis: %v", err)
	}
}

func TestGenesisRefusals(t *testing.T) {
	dir := t.TempDir()
	if err := node.SaveGenesis(dir, testGenesis()); err != nil {
		t.Fatal(err)
	}
	text, err := genesisCmd(t, "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"an unknown key":        {"Version = 1", "Version = 1\nVersoin = 2"},
		"a threshold of all":    {"M = 3", "M = 4"},
		"an id that is none":    {"0100000000", "01000000"},
		"two of one operator":   {"'o-b'", "'o-a'"},
		"another chain's floor": {"MinRate = 1", "MinRate = 3"},
	} {
		file := filepath.Join(t.TempDir(), "g.toml")
		if !strings.Contains(text, change[0]) {
			t.Fatalf("%s: the text has no %q", name, change[0])
		}
		if err := os.WriteFile(file, []byte(strings.Replace(text, change[0], change[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		if _, err := genesisCmd(t, "--from", file, "--dir", out); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(filepath.Join(out, "genesis.cbor")); err == nil {
			t.Errorf("%s: written all the same", name)
		}
	}
}
