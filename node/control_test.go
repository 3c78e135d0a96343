package node

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/apitest"
	"github.com/coffer-network/coffer/node/api/client"
)

// The control socket is its owner's alone, and a new life replaces the old one's.
func TestControlSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, client.ControlSocket)
	for range 2 {
		l, err := listenControl(dir)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Lstat(name)
		if err != nil || st.Mode().Perm() != 0o600 || st.Mode().Type() != os.ModeSocket {
			t.Errorf("mode %v, %v; want a socket of 0600", st.Mode(), err)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 {
			t.Errorf("%d files left, %v", len(files), err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(dir); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := listenControl(filepath.Join(dir, strings.Repeat("x", 120))); err == nil {
		t.Error("a directory that is none: listens")
	}
}

// What is said over the socket reaches the ledger in the member's name; what is
// no vote is refused and says nothing.
func TestControlReachesTheLedger(t *testing.T) {
	c := apitest.NewWithKeys(t)
	dir := t.TempDir()
	l, err := listenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := api.HTTPServer(api.NewControl(c.Member(0), api.Config{}), slog.New(slog.DiscardHandler))
	go srv.Serve(l)
	defer srv.Close()
	ctx := context.Background()
	ctl := client.NewControl(dir)

	said, err := ctl.Propose(ctx, client.Proposal{Kind: "set", Text: "x", Changes: []client.Setting{{Pool: "btc", Name: "s1", Value: "500"}}})
	if err != nil {
		t.Fatal(err)
	}
	b, ok := c.View().Ballots.Get(said.Hash)
	if !ok || len(b.Yes) != 1 || b.By != c.Status().Member || said.LogIndex != c.View().Height {
		t.Errorf("ballot %+v, said %+v", b, said)
	}
	for code, p := range map[string]client.Proposal{
		"BAD_PARAM": {Kind: "cancel", Text: "x", Batch: 999, Outcome: "refund"},
		"MALFORMED": {Kind: "top-up", Text: "x", Amount: "many"},
	} {
		if _, err := ctl.Propose(ctx, p); !client.IsCode(err, code) {
			t.Errorf("%+v: %v, want %s", p, err, code)
		}
	}
	if _, err := ctl.Propose(ctx, client.Proposal{Kind: "resume", Text: "x", Batch: 1}); !client.IsCode(err, "MALFORMED") {
		t.Errorf("a batch where none belongs: %v", err)
	}
	if _, err := ctl.Pause(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	if by, _, paused := c.View().PausedBy(); !paused || by != c.Status().Member {
		t.Error("not paused")
	}
	if _, err := ctl.Resume(ctx); err != nil || c.View().Stopped() != "" {
		t.Errorf("resume: %v, %s", err, c.View().Stopped())
	}

	old := c.Drill("april")
	delete(old.Signatures, ledger.KeyEd255191)
	if _, err := ctl.Drilled(ctx, old); !client.IsCode(err, "MALFORMED") {
		t.Errorf("a drill of one key: %v", err)
	}
	if _, err := ctl.Drilled(ctx, client.Drilled{Name: "june", Signatures: c.Drill("may").Signatures}); !client.IsCode(err, "BAD_SIGNATURE") {
		t.Errorf("a drill of another name: %v", err)
	}
	if _, err := ctl.Drilled(ctx, c.Drill("may")); err != nil {
		t.Fatal(err)
	}
	if at, ok := c.View().Drilled(); !ok || at != c.View().Millis {
		t.Errorf("drilled at %d, %v", at, ok)
	}

	raw := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, client.ControlSocket))
	}}}
	h := c.View().Height
	for name, tc := range map[string]struct {
		path, body string
		status     int
	}{
		"no JSON":                {"/vote", "x", 400},
		"neither":                {"/vote", `{"yes":true}`, 400},
		"both":                   {"/vote", `{"yes":true,"hash":"` + said.Hash + `","proposal":{"kind":"resume","text":"x"}}`, 400},
		"an unknown field":       {"/vote", `{"yes":true,"hash":"` + said.Hash + `","member":"n2"}`, 400},
		"half a hash":            {"/vote", `{"yes":true,"hash":"abcd"}`, 400},
		"an unknown kind":        {"/vote", `{"yes":true,"proposal":{"kind":"mint","text":"x"}}`, 400},
		"an unknown flag":        {"/vote", `{"yes":true,"proposal":{"kind":"stop","flag":"all","text":"x"}}`, 400},
		"a proposal voted no":    {"/vote", `{"yes":false,"proposal":{"kind":"stop","flag":"halt","text":"x"}}`, 400},
		"too long":               {"/vote", `{"yes":true,"hash":"` + strings.Repeat("a", 9<<10) + `"}`, 413},
		"a pause of two hours":   {"/pause", `{"for":"2h"}`, 422},
		"a pause of no duration": {"/pause", `{"for":"long"}`, 422},
		"another path":           {"/sign", `{}`, 404},
	} {
		r, err := raw.Post("http://unix"+tc.path, "application/json", bytes.NewReader([]byte(tc.body)))
		if err != nil {
			t.Fatal(err)
		}
		var p client.Problem
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.StatusCode != tc.status || p.Code == "" {
			t.Errorf("%s: %d %+v %v, want %d", name, r.StatusCode, p, err, tc.status)
		}
		r.Body.Close()
	}
	if c.View().Height != h {
		t.Error("a refused body said something")
	}
	r, err := http.NewRequest(http.MethodPost, "http://evil.example/resume", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := raw.Do(r); err != nil || a.StatusCode != http.StatusForbidden {
		t.Errorf("another host's name: %v", err)
	}
	// A refusal of the ledger comes back under its code.
	if _, err := ctl.Vote(ctx, strings.Repeat("a", 64), true); err == nil || err.(*client.Problem).Code != string(ledger.NotAllowed) {
		t.Errorf("a vote on nothing: %v", err)
	}
}

// leaderless answers the first so many statements as a node does in an election.
type leaderless struct {
	api.Controller
	left int
}

func (l *leaderless) Say(ctx context.Context, kind ledger.Kind, body any) (api.Outcome, error) {
	if l.left--; l.left >= 0 {
		return api.Outcome{}, api.ErrNoLeader
	}
	return l.Controller.Say(ctx, kind, body)
}

// An operator's word waits for an election, as long as he does.
func TestControlWaitsForALeader(t *testing.T) {
	dir := t.TempDir()
	l, err := listenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	member := &leaderless{apitest.NewWithKeys(t).Member(0), 2}
	srv := api.HTTPServer(api.NewControl(member, api.Config{}), slog.New(slog.DiscardHandler))
	go srv.Serve(l)
	defer srv.Close()
	ctl := client.NewControl(dir)
	if _, err := ctl.Pause(context.Background(), time.Minute); err != nil || member.left != -1 {
		t.Errorf("%v, %d left", err, member.left)
	}
	member.left = 1 << 20
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := ctl.Resume(ctx); !client.IsCode(err, "NO_LEADER") {
		t.Errorf("no leader at all: %v", err)
	}
}
