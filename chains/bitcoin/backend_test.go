package bitcoin

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A backend is a Bitcoin node that the adapter must work with. The same tests
// run on each (spec: chains, "Bitcoin").
type backend struct {
	name string
	// binary finds the daemon, or says why there is none.
	binary func(t *testing.T) (path, missing string)
	// flags start it on regtest without peers, with its data in dir and its RPC
	// at listen, for user u and password p.
	flags func(t *testing.T, path, dir, listen, miner string) []string
	// mine is the call that makes n blocks paying miner.
	mine func(n int, miner string) (method string, params []any)
}

var backends = []backend{
	{
		name: "btcd",
		// $BTCD, or the tool that testnet/btcd pins, which the go command keeps
		// in its cache once built.
		binary: func(t *testing.T) (string, string) {
			if path := os.Getenv("BTCD"); path != "" {
				return path, ""
			}
			ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
			defer stop()
			cmd := exec.CommandContext(ctx, "go", "tool", "-n", "btcd")
			cmd.Dir = filepath.Join("..", "..", "testnet", "btcd")
			out, err := cmd.Output()
			if err != nil {
				return "", err.Error() + "; set $BTCD, or make the module of testnet/btcd available"
			}
			return strings.TrimSpace(string(out)), ""
		},
		flags: func(_ *testing.T, _, dir, listen, miner string) []string {
			return []string{
				"--regtest", "--notls", "--rpcuser=u", "--rpcpass=p", "--rpclisten=" + listen, "--nolisten",
				"--configfile=/dev/null", "--datadir=" + dir, "--logdir=" + dir, "--miningaddr=" + miner,
			}
		},
		mine: func(n int, _ string) (string, []any) { return "generate", []any{n} },
	},
	{
		name: "bitcoind",
		binary: func(*testing.T) (string, string) {
			if path := os.Getenv("BITCOIND"); path != "" {
				return path, ""
			}
			return "", "$BITCOIND is not set; .ci/bitcoind.sh FOLDER installs one"
		},
		flags: func(t *testing.T, path, dir, listen, _ string) []string {
			host, port, err := net.SplitHostPort(listen)
			if err != nil {
				t.Fatal(err)
			}
			flags := []string{
				"-regtest", "-datadir=" + dir, "-conf=/dev/null", "-rpcuser=u", "-rpcpassword=p", "-rpcbind=" + host,
				"-rpcallowip=" + host, "-rpcport=" + port, "-listen=0", "-dnsseed=0", "-disablewallet", "-printtoconsole=0",
			}
			version, err := exec.Command(path, "--version").Output()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if bytes.Contains(version, []byte("Knots")) {
				flags = append(flags, "-mempooltruc=enforce") // Core's policy, not Knots'
			}
			return flags
		},
		mine: func(n int, miner string) (string, []any) { return "generatetoaddress", []any{n, miner} },
	},
}

// eachBackend runs a test on every backend there is. On CI all must be.
func eachBackend(t *testing.T, test func(*testing.T, *regtest)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, startRegtest(t, b)) })
	}
}

// start runs the daemon until the test ends, and returns its RPC address.
func (b backend) start(t *testing.T, miner string) (url string) {
	t.Helper()
	path, missing := b.binary(t)
	switch {
	case missing == "":
	case os.Getenv("CI") != "":
		t.Fatalf("no %s, and CI must not go without: %s", b.name, missing)
	default:
		t.Skipf("no %s: %s", b.name, missing)
	}
	listen, dir := freePort(t), t.TempDir()
	cmd := exec.Command(path, b.flags(t, path, dir, listen, miner)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	url = "http://" + listen
	rpc := newClient(url, "u", "p")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("%s ended: %v\n%s", b.name, err, log.String())
		case <-deadline:
			t.Fatalf("%s did not answer\n%s", b.name, log.String())
		case <-tick.C:
			var hash string
			if rpc.call(t.Context(), &hash, "getbestblockhash") == nil {
				return url
			}
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// "the regtest node of the testnet and the Bitcoin Core family node": both are
// in the table, so that none is dropped without a word.
func TestBothBackends(t *testing.T) {
	var names []string
	for _, b := range backends {
		names = append(names, b.name)
	}
	if !slices.Equal(names, []string{"btcd", "bitcoind"}) {
		t.Errorf("backends %v", names)
	}
}
