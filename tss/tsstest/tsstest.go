package tsstest

import (
	"crypto/ed25519"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

//go:embed testdata/preparams-TEST-ONLY.json
var preParamsFile []byte

var parsed = sync.OnceValue(func() []*keygen.LocalPreParams {
	var f struct {
		Warning string                   `json:"warning"`
		Sets    []*keygen.LocalPreParams `json:"sets"`
	}
	if err := json.Unmarshal(preParamsFile, &f); err != nil {
		panic("tsstest: " + err.Error())
	}
	return f.Sets
})

// Passphrase of every keystore made here.
var Passphrase = []byte("test")

// TestWorkFactor keeps scrypt out of test times.
const TestWorkFactor = 4

// PreParams returns n of the public sets, at most five.
func PreParams(n int) []*keygen.LocalPreParams {
	onlyInTests()
	return parsed()[:n]
}

func onlyInTests() {
	if !testing.Testing() {
		panic("tsstest: for tests only; its keys are public")
	}
}

// Identity returns the key of test member i.
func Identity(i int) ed25519.PrivateKey {
	onlyInTests()
	seed := sha256.Sum256([]byte{'t', 'e', 's', 't', byte(i)})
	return ed25519.NewKeyFromSeed(seed[:])
}

// Party returns the name of test member i.
func Party(i int) tss.PartyID { return tss.PartyID(Identity(i).Public().(ed25519.PublicKey)) }

// Parties returns members 0 to n-1.
func Parties(n int) []tss.PartyID {
	ps := make([]tss.PartyID, n)
	for i := range ps {
		ps[i] = Party(i)
	}
	return ps
}

// Keystore makes an empty keystore for test member i. It is closed when the
// test ends.
func Keystore(t testing.TB, i int) *keystore.Keystore {
	t.Helper()
	k, err := keystore.Init(filepath.Join(t.TempDir(), "keystore"), Passphrase,
		keystore.Options{Node: Party(i), TestWorkFactor: TestWorkFactor})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// Deal makes a key of n members with signing threshold m: their KeyShares and
// the compressed public key.
func Deal(t testing.TB, cluster [32]byte, key tss.KeyID, epoch, try uint64, n, m int) (map[tss.PartyID]keystore.KeyShare, []byte) {
	t.Helper()
	onlyInTests()
	shares, err := tss.Deal(tss.Request{
		Cluster: cluster, Key: key, Epoch: epoch, Try: try, Parties: Parties(n), M: m,
	}, parsed())
	if err != nil {
		t.Fatal(err)
	}
	return shares, shares[Party(0)].Pub
}

// Node is a member with its keystore and Signer.
type Node struct {
	ID       tss.PartyID
	Keystore *keystore.Keystore
	Signer   *tss.Signer
}

// Cluster connects n members over a loopback. Their sessions run in this process
// unless configure, which may be nil and may change the Config of member i, says
// otherwise.
func Cluster(t testing.TB, cluster [32]byte, n int, configure func(i int, c *tss.Config)) (*tss.Loopback, []Node) {
	t.Helper()
	net := tss.NewLoopback()
	nodes := make([]Node, n)
	for i := range nodes {
		id, ks := Party(i), Keystore(t, i)
		cfg := tss.Config{Identity: Identity(i), Cluster: cluster, Keystore: ks, Transport: net.Node(id), InProcess: true}
		if configure != nil {
			configure(i, &cfg)
		}
		s, err := tss.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		net.Attach(id, s)
		nodes[i] = Node{ID: id, Keystore: ks, Signer: s}
	}
	return net, nodes
}

// Activate stages and activates dealt shares at their members.
func Activate(t testing.TB, nodes []Node, shares map[tss.PartyID]keystore.KeyShare) {
	t.Helper()
	for _, n := range nodes {
		s, ok := shares[n.ID]
		if !ok {
			continue
		}
		if err := n.Keystore.StageKeyShare(s); err != nil {
			t.Fatal(err)
		}
		if err := n.Keystore.Activate(s.ID); err != nil {
			t.Fatal(err)
		}
	}
}
