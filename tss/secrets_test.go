package tss_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	ecdsakeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecdsasigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	eddsakeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"

	lib "github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// needles are the ways in which a secret can stand in a text. Hex is looked for
// in pieces of eight bytes, so that a limb in a trace is found as well.
func needles(secret []byte) []string {
	n := new(big.Int).SetBytes(secret)
	out := []string{n.String(), strings.Trim(fmt.Sprint(secret), "[]")}
	h := hex.EncodeToString(secret)
	for at := 0; at+16 <= len(h); at += 16 {
		out = append(out, h[at:at+16])
	}
	for i, w := range n.Bits() { // words as the runtime prints arguments
		if i < len(n.Bits())-1 {
			out = append(out, fmt.Sprintf("%x", uint64(w)))
		}
	}
	for shift := range 3 { // base64 of a longer value that holds it
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s := enc.EncodeToString(append(make([]byte, shift), secret...))
			out = append(out, s[4:len(s)-4])
		}
	}
	return out
}

// leaks lists the secrets that a text holds, by name.
func leaks(text string, secrets map[string][]byte) []string {
	var found []string
	lower := strings.ToLower(text)
	for name, secret := range secrets {
		forms := needles(secret)
		if strings.HasPrefix(name, "passphrase") {
			forms = append(forms, string(secret))
		}
		for _, f := range forms {
			if strings.Contains(text, f) || strings.Contains(lower, f) {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// syncBuffer takes the log of several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Nothing that a node logs at debug level or returns as an error, over key
// generation, signatures, and sessions that fail in each way, holds key material
// of any member. Seen failing with "log holds [Xi of e1 0 Paillier Q of k1 2 …"
// when the session logged the KeyShare it loaded.
func TestDebugRunShowsNoSecret(t *testing.T) {
	log := &syncBuffer{}
	var stores []*keystore.Keystore
	secrets := map[string][]byte{}
	configure := func(i int, c *tss.Config) {
		patient(i, c)
		pass := sha256.Sum256([]byte{byte(i), 'p'})
		passphrase := []byte(fmt.Sprintf("correct horse %x", pass[:9]))
		ks, err := keystore.Init(filepath.Join(t.TempDir(), "ks"), passphrase,
			keystore.Options{Node: tsstest.Party(i), TestWorkFactor: tsstest.TestWorkFactor})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ks.Close() })
		stores = append(stores, ks)
		secrets[fmt.Sprintf("passphrase %d/%d", i, len(stores))] = passphrase
		secrets[fmt.Sprintf("file key %d/%d", i, len(stores))] = bytes.Clone(reflect.ValueOf(ks).Elem().FieldByName("fileKey").Bytes())
		c.Keystore, c.InProcess = ks, false
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	}
	_, nodes := tsstest.Cluster(t, cluster, 3, configure)
	for i := range nodes {
		nodes[i].Keystore = stores[i]
	}
	tell := func(errs ...error) { // what a node would log of an error, in full
		for _, err := range errs {
			if err == nil {
				continue
			}
			fmt.Fprintf(log, "%v %+v %#v\n", err, err, err)
			var b *tss.Blame
			if errors.As(err, &b) {
				fmt.Fprintf(log, "%+v %#v %x\n", *b, *b, b.Evidence)
			}
		}
	}

	// Keys: one made, and in the long run the other one too.
	made := keygenAll(t, nodes, keygenRequest(eddsaKey, 3, 2))
	activate(t, nodes, made.ID)
	var ecdsaPub []byte
	if testing.Short() {
		shares, pub := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 3, 2)
		tsstest.Activate(t, nodes, shares)
		ecdsaPub = pub
	} else {
		for i, n := range nodes {
			if err := tss.StorePreParams(n.Keystore, tsstest.PreParams(3)[i]); err != nil {
				t.Fatal(err)
			}
		}
		made := keygenAll(t, nodes, keygenRequest(ecdsaKey, 3, 2))
		activate(t, nodes, made.ID)
		ecdsaPub = made.Pub
	}
	for i, n := range nodes {
		collect(t, secrets, i, n.Keystore)
	}

	digest := sha256.Sum256([]byte("x"))
	run := func(key tss.KeyID, turn uint16, in []tsstest.Node, ids ...tss.PartyID) {
		r := signRequest(key, digest[:], ids...)
		r.Turn = turn
		r.Session = tss.SessionName(r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		errs := make([]error, len(in))
		var wg sync.WaitGroup
		for i, n := range in {
			wg.Go(func() {
				if _, errs[i] = n.Signer.Sign(ctx, r); i == 0 {
					cancel() // who lies waits for an answer that will not come
				}
			})
		}
		wg.Wait()
		tell(errs...)
		if turn == 0 && errs[0] != nil {
			t.Errorf("%s: %v", key.ID, errs[0])
		}
	}
	both := nodes[:2]
	run(ecdsaKey, 0, both, nodes[0].ID, nodes[1].ID)
	run(eddsaKey, 0, both, nodes[0].ID, nodes[1].ID)
	r := signRequest(tss.KeyID{ID: "none", Curve: tss.Ed25519}, digest[:], nodes[0].ID, nodes[1].ID)
	_, err := nodes[0].Signer.Sign(t.Context(), r)
	tell(err)
	// A message that the guard refuses, and one that the library does.
	nodes[1].Signer.Tamper(func(name string, _ int, payload []byte) []byte {
		if name == "S3" {
			return spoil(func(m *ecdsasigning.SignRound3Message) { m.Theta = order(lib.S256()) })(payload)
		}
		return payload
	})
	run(ecdsaKey, 1, both, nodes[0].ID, nodes[1].ID)
	nodes[1].Signer.Tamper(func(name string, _ int, payload []byte) []byte {
		if name == "S9" {
			return spoil(func(m *ecdsasigning.SignRound9Message) { m.S = increment(m.S) })(payload)
		}
		return payload
	})
	run(ecdsaKey, 2, both, nodes[0].ID, nodes[1].ID)

	// A child that dies.
	_, doomed := tsstest.Cluster(t, cluster, 2, func(i int, c *tss.Config) { configure(i, c); tss.WithoutGuard(c) })
	shares, _ := tsstest.Deal(t, cluster, ecdsaKey, 1, 2, 2, 2)
	for i := range doomed {
		doomed[i].Keystore = stores[3+i]
	}
	tsstest.Activate(t, doomed, shares)
	for i, n := range doomed {
		collect(t, secrets, 10+i, n.Keystore)
	}
	signatureCrash(t, doomed[1], shares[doomed[1].ID].Secret)
	run(ecdsaKey, 3, doomed, doomed[0].ID, doomed[1].ID)

	text := log.String()
	for _, want := range []string{"key share staged", "signed", "S6", "crashed", "no usable key share"} {
		if !strings.Contains(text, want) {
			t.Errorf("the run did not show %q", want)
		}
	}
	if len(secrets) < 30 || len(ecdsaPub) == 0 {
		t.Fatalf("only %d secrets known", len(secrets))
	}
	if found := leaks(text, secrets); len(found) > 0 {
		t.Errorf("log holds %v", found)
	}
	for name, secret := range secrets { // the search finds each of them
		for _, f := range needles(secret) {
			if len(leaks("x"+f+"y", map[string][]byte{name: secret})) == 0 {
				t.Fatalf("%s is not found as %q", name, f)
			}
		}
		long := base64.StdEncoding.EncodeToString(append([]byte("ab"), secret...))
		if len(leaks(long, map[string][]byte{name: secret})) == 0 {
			t.Fatalf("%s is not found inside base64", name)
		}
	}
}

// collect adds the secrets of every KeyShare in a keystore.
func collect(t *testing.T, secrets map[string][]byte, member int, ks *keystore.Keystore) {
	t.Helper()
	infos, err := ks.Shares()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		k, _, err := ks.KeyShare(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		add := func(name string, x *big.Int) {
			if x != nil {
				secrets[fmt.Sprintf("%s of %s %d", name, info.ID.Key, member)] = x.Bytes()
			}
		}
		if info.Curve == string(tss.Ed25519) {
			var d eddsakeygen.LocalPartySaveData
			if err := json.Unmarshal(k.Secret, &d); err != nil {
				t.Fatal(err)
			}
			add("Xi", d.Xi)
			continue
		}
		var d ecdsakeygen.LocalPartySaveData
		if err := json.Unmarshal(k.Secret, &d); err != nil {
			t.Fatal(err)
		}
		for name, x := range map[string]*big.Int{
			"Xi": d.Xi, "Paillier P": d.PaillierSK.P, "Paillier Q": d.PaillierSK.Q, "lambda": d.PaillierSK.LambdaN, "phi": d.PaillierSK.PhiN,
			"NTilde p": d.P, "NTilde q": d.Q, "alpha": d.Alpha, "beta": d.Beta,
		} {
			add(name, x)
		}
	}
}
