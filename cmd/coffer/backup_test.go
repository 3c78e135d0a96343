package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

// nodeCmd runs one `coffer node` command.
func nodeCmd(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCmd()
	root.SetOut(&out)
	root.SetArgs(append([]string{"node"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// The commands as an operator gives them: write, verify, restore; a wrong
// passphrase is exit code 3, passphrases that others can read are refused, and a
// node of another cluster is no witness.
func TestBackupCommands(t *testing.T) {
	dir, secrets := t.TempDir(), t.TempDir()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	id := ledger.MemberID(key.Public().(ed25519.PublicKey))
	g := testGenesis()
	g.Epoch.Members[0].ID = id
	slices.SortFunc(g.Epoch.Members, func(a, b ledger.Member) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	var parties []tss.PartyID
	for _, m := range g.Epoch.Members {
		parties = append(parties, tss.PartyID(m.ID))
	}
	dealt, err := tss.Deal(tss.Request{Cluster: g.Hash(), Key: tss.KeyID{ID: ledger.KeyEd255191, Curve: tss.Ed25519}, Epoch: 1, Try: 1, Parties: parties, M: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ks, err := keystore.Init(filepath.Join(dir, "keystore"), []byte("of the keystore"), keystore.Options{Node: id, TestWorkFactor: 4})
	if err != nil {
		t.Fatal(err)
	}
	mine := dealt[tss.PartyID(id)]
	write := func(path, text string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := errors.Join(ks.Put("identity", key.Seed()), ks.StageKeyShare(mine), ks.Activate(mine.ID), ks.Close(), node.SaveGenesis(dir, g)); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "identity.pub"), id.String()+"\n", 0o600)
	write(filepath.Join(dir, "node.toml"), "listen = '/ip4/127.0.0.1/tcp/0'\n", 0o600)
	old := write(filepath.Join(secrets, "old"), "of the keystore\n", 0o600)
	pass := write(filepath.Join(secrets, "pass"), "of the backup, long\n", 0o600)
	wrong := write(filepath.Join(secrets, "wrong"), "of another backup\n", 0o600)
	short := write(filepath.Join(secrets, "short"), "short\n", 0o600)
	open := write(filepath.Join(secrets, "open"), "of the backup, long\n", 0o644)
	file := filepath.Join(secrets, "n1.backup")

	wantExit := func(code int, err error) {
		t.Helper()
		var e *exitError
		if !errors.As(err, &e) || e.code != code {
			t.Errorf("got %v, want exit code %d", err, code)
		}
	}
	_, err = nodeCmd(t, "backup", "--dir", dir, "--out", file, "--passphrase-file", old, "--backup-passphrase-file", short)
	wantExit(exitUsage, err)
	_, err = nodeCmd(t, "backup", "--dir", dir, "--out", file, "--passphrase-file", wrong, "--backup-passphrase-file", pass)
	wantExit(exitPassphrase, err)
	if _, err = nodeCmd(t, "backup", "--dir", dir, "--out", file, "--passphrase-file", old, "--backup-passphrase-file", open); err == nil {
		t.Error("took a passphrase that others can read")
	}
	out, err := nodeCmd(t, "backup", "--dir", dir, "--out", file, "--passphrase-file", old, "--backup-passphrase-file", pass)
	if err != nil || !strings.Contains(out, "epoch 1, in force, 3 of 4 sign") || !strings.Contains(out, id.String()) {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "no note of which are in force") { // it never ran
		t.Errorf("how does it know?\n%s", out)
	}
	out, err = nodeCmd(t, "backup", "--verify", file, "--backup-passphrase-file", pass, "--json")
	if err != nil || !strings.Contains(out, `"ok":true`) {
		t.Fatalf("%v\n%s", err, out)
	}
	_, err = nodeCmd(t, "backup", "--verify", file, "--backup-passphrase-file", wrong)
	wantExit(exitPassphrase, err)

	c := apitest.NewWithKeys(t)
	srv := httptest.NewServer(api.New(c, api.Config{History: c.History()}))
	defer srv.Close()
	to := filepath.Join(t.TempDir(), "new")
	_, err = nodeCmd(t, "restore", "--dir", to, "--from", file, "--backup-passphrase-file", pass, "--passphrase-file", old)
	wantExit(exitUsage, err)
	if _, err = nodeCmd(t, "restore", "--dir", to, "--from", file, "--backup-passphrase-file", pass, "--passphrase-file", old, "--node", srv.URL); err == nil || !strings.Contains(err.Error(), "is of cluster") {
		t.Errorf("a node of another cluster is a witness: %v", err)
	}
	out, err = nodeCmd(t, "restore", "--dir", to, "--from", file, "--backup-passphrase-file", pass, "--passphrase-file", old, "--no-cluster")
	if err != nil || !strings.Contains(out, "learner") {
		t.Fatalf("%v\n%s", err, out)
	}
	if h, err := node.LoadGenesis(to); err != nil || h.Hash() != g.Hash() {
		t.Errorf("genesis: %v", err)
	}
}
