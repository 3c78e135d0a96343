package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/testnet"
)

// binary is the coffer under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "coffer-cluster-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "coffer")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/coffer").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build coffer: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// coffer is one run of the binary.
type coffer struct {
	*exec.Cmd
	out, err bytes.Buffer
}

func command(ctx context.Context, args ...string) *coffer {
	c := &coffer{Cmd: exec.CommandContext(ctx, binary, args...)}
	c.Stdout, c.Stderr = &c.out, &c.err
	return c
}

// result is what `testnet --demo --json` promises on its last line.
type result struct {
	OK    bool `json:"ok"`
	Steps []struct {
		Name    string   `json:"name"`
		Chain   string   `json:"chain"`
		TxID    *string  `json:"txid"`
		Signers []string `json:"signers"`
		Seconds *float64 `json:"seconds"`
	} `json:"steps"`
	Ready  float64 `json:"ready_seconds"`
	First  float64 `json:"first_payout_seconds"`
	Total  float64 `json:"total_seconds"`
	Error_ any     `json:"error"`
}

// TestDemoAndResume carries the worked example over real chains, then resumes
// the same directory and borrows by hand through another node.
func TestDemoAndResume(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole network: four minutes")
	}
	dir := filepath.Join(t.TempDir(), "net")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := command(ctx, "testnet", "--demo", "--json", "--dir", dir)
	if err := c.Run(); err != nil {
		t.Fatalf("demo: %v\n%s\n%s%s", err, c.out.String(), c.err.String(), logs(dir))
	}
	checkDemo(t, c.out.Bytes())
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
	noSecrets(t, dir)
	resume(t, ctx, dir)
	somebodyDies(t, ctx, dir)
}

func checkDemo(t *testing.T, out []byte) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var r result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("last line of standard output is no JSON: %v\n%s", err, out)
	}
	t.Logf("ready %.0f s, first payout %.0f s, all %.0f s", r.Ready, r.First, r.Total)
	if !r.OK {
		t.Error("ok is false")
	}
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
		onChain := s.Name != "refused"
		if (s.TxID != nil) != onChain {
			t.Errorf("step %s: txid %v", s.Name, s.TxID)
		}
		signed := onChain && s.Name != "deposit"
		if signed && len(s.Signers) != 3 || !signed && (s.Signers == nil || len(s.Signers) != 0) {
			t.Errorf("step %s: signers %v", s.Name, s.Signers)
		}
		if s.Seconds == nil {
			t.Errorf("step %s: no seconds", s.Name)
		}
	}
	want := []string{"supply", "deposit", "borrow", "refused", "borrow-more", "kill", "repay", "withdraw"}
	if !slices.Equal(names, want) {
		t.Errorf("steps %v, want %v", names, want)
	}
	if r.Ready <= 0 || r.First <= r.Ready || r.Total <= r.First {
		t.Errorf("seconds ready %v, first payout %v, total %v", r.Ready, r.First, r.Total)
	}
}

// up starts the network of a directory and waits until it can lend.
func up(t *testing.T, ctx context.Context, dir string) *coffer {
	t.Helper()
	c := command(ctx, "testnet", "--dir", dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ready := make(chan bool, 1)
	go func() {
		defer r.Close()
		s := bufio.NewScanner(r)
		for s.Scan() {
			if strings.Contains(s.Text(), "Ctrl-C stops everything") {
				ready <- true
			}
		}
		ready <- false
	}()
	if !<-ready {
		err := c.Wait()
		t.Fatalf("network of %s ended: %v\n%s%s", dir, err, c.err.String(), logs(dir))
	}
	return c
}

// resume starts the network again from its directory, uses it by hand and ends
// it with Ctrl-C.
func resume(t *testing.T, ctx context.Context, dir string) {
	t.Helper()
	c := up(t, ctx, dir)
	byHand(t, ctx, dir)

	second := command(ctx, "testnet", "--dir", dir)
	if err := second.Run(); err == nil || !strings.Contains(second.err.String(), "already runs in") {
		t.Errorf("a second testnet in one directory: %v\n%s", err, second.err.String())
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v\n%s", err, c.err.String())
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left behind by Ctrl-C: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "node-1", "genesis.cbor")); err != nil {
		t.Errorf("Ctrl-C took the directory: %v", err)
	}
}

// somebodyDies: a node's death is told with its log and takes nobody along, and start brings it back; without a chain
// nothing goes on, and all is cleared away.
func somebodyDies(t *testing.T, ctx context.Context, dir string) {
	t.Helper()
	c := up(t, ctx, dir)
	kill := func(what string) {
		t.Helper()
		killed := 0
		for pid, line := range processes(t, dir) {
			if strings.Contains(line, what) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				killed++
			}
		}
		if killed != 1 {
			t.Fatalf("killed %d processes of %s", killed, what)
		}
	}
	kill("node start --dir " + filepath.Join(dir, "node-2"))
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		s := command(ctx, "testnet", "start", "node-2", "--dir", dir)
		if s.Run() == nil {
			break
		}
		if text := s.err.String(); !strings.Contains(text, "node-2 runs") || time.Now().After(end) { // its end is not seen yet
			t.Fatalf("start node-2: %s", text)
		}
	}
	if s := command(ctx, "testnet", "stop", "node-2", "--dir", dir); s.Run() != nil {
		t.Errorf("stop node-2: %s", s.err.String())
	}
	kill("ethnode")
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("a chain node died: %v, want exit code 1", err)
	}
	text := c.err.String()
	if !strings.Contains(text, "node-2 died (signal: killed)") || !strings.Contains(text, "node-2.log") || strings.Count(text, "died") != 2 {
		t.Errorf("want one line naming the node and its log, and one the chain, got:\n%s", text)
	}
	if last := lastLine(text); !strings.Contains(last, "ethereum died (signal: killed)") {
		t.Errorf("last line %q", last)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

// byHand walks the commands a person would type, with a taproot signer for the
// request, which the demo does not use, and ends in her liquidation.
func byHand(t *testing.T, ctx context.Context, dir string) {
	t.Helper()
	apis, err := testnet.APIs(dir)
	if err != nil {
		t.Fatal(err)
	}
	env := func(c *coffer, api int, wallet string) *coffer {
		c.Env = append(os.Environ(), "COFFER_API="+apis[api], "COFFER_WALLET="+filepath.Join(dir, wallet))
		return c
	}
	at := func(api int, args ...string) map[string]any {
		t.Helper()
		c := env(command(ctx, append(args, "--json")...), api, "hand.json")
		if err := c.Run(); err != nil {
			t.Fatalf("coffer %v: %v\n%s%s", args, err, c.out.String(), c.err.String())
		}
		var doc map[string]any
		if err := json.Unmarshal(c.out.Bytes(), &doc); err != nil {
			t.Fatalf("coffer %v: %v\n%s", args, err, c.out.String())
		}
		return doc
	}
	at(0, "wallet", "new")
	at(1, "account", "open", "--with", "p2tr")
	address := at(2, "deposit-address", "btc", "--with", "p2tr")["address"].(string)
	at(0, "testnet", "faucet", "BTC", address, "0.5", "--dir", dir)
	at(0, "testnet", "mine", "6", "--dir", dir)
	// Her other wallet lends ETH, which she borrows as well.
	at(1, "account", "open", "--with", "eth")
	at(0, "testnet", "faucet", "ETH", at(2, "deposit-address", "eth", "--with", "eth")["address"].(string), "1", "--dir", dir)

	c, err := client.New(apis[3], nil)
	if err != nil {
		t.Fatal(err)
	}
	id := at(3, "account", "--with", "p2tr")["id"].(string)
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		a, err := c.Account(ctx, id)
		if err == nil && slices.ContainsFunc(a.Health.Positions, func(p client.Position) bool { return p.Pool == "btc" && p.Collateral == "50000000" }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("0.5 BTC not credited in %s: %v %+v", patience, err, a)
		}
	}
	to := "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"
	at(2, "borrow", "100", "usdt.eth", "--to", to, "--with", "p2tr", "--yes")
	lender := at(3, "account", "--with", "eth")["id"].(string)
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		a, err := c.Account(ctx, lender)
		if err == nil && slices.ContainsFunc(a.Health.Positions, func(p client.Position) bool { return p.Pool == "eth" && p.Supplied == "1000000000000000000" }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("1 ETH not credited in %s: %v %+v", patience, err, a)
		}
	}
	payouts := []map[string]any{ // ETH is paid out of what the sweep brings, meanwhile
		at(2, "borrow", "0.01", "eth", "--to", to, "--with", "p2tr", "--yes"),
		at(1, "withdraw", "0.4", "eth", "--to", to, "--with", "eth", "--yes"),
	}
	for _, show := range []string{"position", "markets", "status"} {
		args := []string{show}
		if show == "position" {
			args = append(args, "--with", "p2tr")
		}
		at(1, args...)
	}

	// Then the price falls while she owes 15,100; somebody's bot, funded at the address
	// that it names itself, takes collateral for half of that (HF is over 0.95).
	payouts = append(payouts, at(2, "borrow", "15000", "usdt.eth", "--to", to, "--with", "p2tr", "--yes"))
	if bob := env(command(ctx, "wallet", "new"), 0, "bob.json"); bob.Run() != nil {
		t.Fatal(bob.err.String())
	}
	if bob := env(command(ctx, "account", "open"), 0, "bob.json"); bob.Run() != nil {
		t.Fatal(bob.err.String())
	}
	owed := func(of, pool string) (supplied, owed int64) {
		t.Helper()
		a, err := c.Account(ctx, of)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Health.Positions {
			if p.Pool == pool {
				supplied, _ = strconv.ParseInt(p.Supplied, 10, 64)
				owed, _ = strconv.ParseInt(p.Owed, 10, 64)
			}
		}
		return supplied, owed
	}
	_, before := owed(id, "usdt.eth")
	bot := startBot(t, env(command(ctx, "liquidator", "--every", "1s", "--json"), 1, "bob.json"))
	fund := bot.until("fund")
	i := slices.IndexFunc(fund.Addresses, func(a botAddress) bool { return a.Asset == "usdt.eth" })
	if i < 0 {
		t.Fatalf("the bot names no address for USDT: %+v", fund)
	}
	at(0, "testnet", "faucet", "USDT", fund.Addresses[i].Address, "20000", "--dir", dir)
	// What still waits for its coins when she becomes too weak is given back, not paid.
	for i, want := range []struct{ asset, gross string }{{"eth", "10000000000000000"}, {"eth", "400000000000000000"}, {"usdt.eth", "15000000000"}} {
		o, err := c.WaitOutflow(ctx, uint64(payouts[i]["outflow"].(float64)), time.Second, client.Settled)
		if err != nil || o.State != "PAID" || o.Asset != want.asset || o.Gross != want.gross || o.TxID == "" {
			t.Fatalf("payout of %s %s: %+v %v", want.gross, want.asset, o, err)
		}
	}
	at(0, "testnet", "price", "BTC", "37000", "--dir", dir)
	bot.until("watching")
	done := bot.until("liquidated").Liquidated
	if done.Borrower != id || done.Debt != "usdt.eth" || done.Collateral != "btc" {
		t.Errorf("liquidated %+v, want the debt of %s", done, id)
	}
	if !slices.Contains(bot.skipped, id+" PRICE_SUSPECT") {
		t.Errorf("the fall was never suspect: the bot left alone %v", bot.skipped)
	}
	bot.stop()
	c.SawWrite(done.LogIndex)
	repaid, _ := strconv.ParseInt(done.Repaid, 10, 64)
	if _, after := owed(id, "usdt.eth"); repaid < 7_500_000_000 || after > before-repaid+1_000_000 {
		t.Errorf("she owed %d, owes %d, after a liquidation of %s", before, after, done.Repaid)
	}
	if has, _ := owed(fund.Account, "btc"); has == 0 || strconv.FormatInt(has, 10) != done.Gained {
		t.Errorf("the bot's account supplies %d sats, gained %s", has, done.Gained)
	}
}

// bot is a running `coffer liquidator --json`.
type bot struct {
	t       *testing.T
	c       *coffer
	events  chan botEvent
	skipped []string // borrower and code
}

type botAddress struct{ Asset, Address string }

type botEvent struct {
	Event      string
	Account    string
	Addresses  []botAddress
	Error      string
	Liquidated client.Liquidated
	Skipped    client.Skipped
}

func startBot(t *testing.T, c *coffer) *bot {
	t.Helper()
	b := &bot{t: t, c: c, events: make(chan botEvent, 64)}
	c.Stdout = nil
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.events)
		for d := json.NewDecoder(out); ; {
			var e botEvent
			if d.Decode(&e) != nil {
				return
			}
			b.events <- e
		}
	}()
	return b
}

// busy: an answer that says no more than that the same may be asked later.
func busy(text string) bool {
	return slices.ContainsFunc([]string{"NO_LEADER", "TIMEOUT", "OVERLOADED", "ask again"}, func(word string) bool { return strings.Contains(text, word) })
}

// until waits for an event of that name; an error before it is one of the test, but for
// those of a busy machine, which may hold an election or be late: the bot goes on by itself.
func (b *bot) until(name string) botEvent {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-b.events:
			switch {
			case !ok:
				b.t.Fatalf("the bot ended before %s: %s", name, b.c.err.String())
			case e.Event == name:
				return e
			case e.Event == "error" && !busy(e.Error):
				b.t.Errorf("the bot says %s", e.Error)
			case e.Event == "skipped":
				b.skipped = append(b.skipped, e.Skipped.Borrower+" "+e.Skipped.Code)
			}
		case <-deadline:
			b.t.Fatalf("no %s in %s; left alone: %v", name, patience, b.skipped)
		}
	}
}

// stop is Ctrl-C.
func (b *bot) stop() {
	b.t.Helper()
	if err := b.c.Process.Signal(os.Interrupt); err != nil {
		b.t.Fatal(err)
	}
	b.until("stopped")
	var exit *exec.ExitError
	if err := b.c.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		b.t.Errorf("Ctrl-C ends the bot with %v, want exit code 130", err)
	}
}

// TestPortInUse: one clear line that says what and what to do.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	dir := filepath.Join(t.TempDir(), "net")
	c := command(t.Context(), "testnet", "--dir", dir, "--api-port", fmt.Sprint(port))
	if err := c.Run(); err == nil {
		t.Fatal("started on a port in use")
	}
	last := lastLine(c.err.String())
	if !strings.Contains(last, fmt.Sprint(port)) || !strings.Contains(last, "--api-port") {
		t.Errorf("want one line naming the port and the flag, got:\n%s", c.err.String())
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

// TestWrongPassphrase: exit code 3, no retry, and the passphrase is not echoed.
func TestWrongPassphrase(t *testing.T) {
	dir := t.TempDir()
	right, wrong := filepath.Join(dir, "right"), filepath.Join(dir, "wrong")
	for name, text := range map[string]string{right: "correct horse", wrong: "battery staple"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(dir, "n1")
	if c := command(t.Context(), "node", "init", "--dir", home, "--passphrase-file", right); c.Run() != nil {
		t.Fatalf("init: %s", c.err.String())
	}
	g := smallGenesis(t, home)
	writeNode(t, home, g)
	c := command(t.Context(), "node", "start", "--dir", home, "--passphrase-file", wrong)
	err := c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("exit %v, want 3\n%s", err, c.err.String())
	}
	if strings.Contains(c.err.String(), "battery") || strings.Contains(c.err.String(), "horse") {
		t.Errorf("passphrase shown: %s", c.err.String())
	}
	if err := os.Chmod(right, 0o644); err != nil {
		t.Fatal(err)
	}
	c = command(t.Context(), "node", "start", "--dir", home, "--passphrase-file", right)
	if err := c.Run(); err == nil || !strings.Contains(c.err.String(), "0600") {
		t.Errorf("a passphrase file that others read: %v\n%s", err, c.err.String())
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// processesOf lists processes whose command line names dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	return slices.Collect(maps.Values(processes(t, dir)))
}

// processes finds them with their ids.
func processes(t *testing.T, dir string) map[int]string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	found := map[int]string{}
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(e)
		pid, perr := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if err != nil || perr != nil {
			continue // ended meanwhile
		}
		if line := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(line, dir) {
			found[pid] = line
		}
	}
	return found
}

// noSecrets: no log of the run holds the passphrase that opens the keystores.
func noSecrets(t *testing.T, dir string) {
	t.Helper()
	pass, err := os.ReadFile(filepath.Join(dir, "passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "logs", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, l := range logs {
		b, err := os.ReadFile(l)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, bytes.TrimSpace(pass)) {
			t.Errorf("%s holds the passphrase", filepath.Base(l))
		}
		if st, err := os.Stat(l); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", filepath.Base(l), st.Mode(), err)
		}
	}
}

// logs is the end of each child's log, for a failed run.
func logs(dir string) string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(dir, "logs", "*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "\n== %s\n%s", filepath.Base(f), text[max(0, len(text)-4000):])
	}
	return b.String()
}
