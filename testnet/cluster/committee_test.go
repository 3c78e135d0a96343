package cluster

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/testnet"
)

var committee = flag.Bool("committee", false, "run the tests in which the committee of a running network changes: some ten minutes")

// change is a running network whose committee changes.
type change struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	apis []string
	at   []*client.Client // by node

	fifth *coffer // node-5, which is not the network's own
}

// TestCommitteeChanges takes a fifth node into a running network of four and lets
// one go again: with real processes and chains, payouts all the while, and the
// same addresses in the end.
func TestCommitteeChanges(t *testing.T) {
	if !*committee {
		t.Skip("starts a whole network and makes its key shares anew, more than once: give -committee")
	}
	dir := filepath.Join(t.TempDir(), "net")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	c := &change{t: t, ctx: ctx, dir: dir}
	began := time.Now()
	step := func(text string) { t.Logf("%4.0f s  %s", time.Since(began).Seconds(), text) }
	up(t, ctx, dir)
	apis, err := testnet.APIs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apis {
		c.add(a)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(logs(dir))
		}
	})
	step("a network of four")

	cli := func(api int, args ...string) map[string]any {
		t.Helper()
		cmd := command(ctx, append(args, "--json")...)
		cmd.Env = append(os.Environ(), "COFFER_API="+c.apis[api], "COFFER_WALLET="+filepath.Join(dir, "alice.json"))
		if err := cmd.Run(); err != nil {
			t.Fatalf("coffer %v: %v\n%s%s", args, err, cmd.out.String(), cmd.err.String())
		}
		var doc map[string]any
		if err := json.Unmarshal(cmd.out.Bytes(), &doc); err != nil {
			t.Fatalf("coffer %v: %v\n%s", args, err, cmd.out.String())
		}
		return doc
	}
	cli(0, "wallet", "new")
	cli(1, "account", "open")
	address := cli(2, "deposit-address", "btc")["address"].(string)
	cli(0, "testnet", "faucet", "BTC", address, "1", "--dir", dir)
	cli(0, "testnet", "mine", "6", "--dir", dir)
	id := cli(3, "account")["id"].(string)
	c.until(90*time.Second, "1 BTC credited", func() bool {
		a, err := c.at[3].Account(ctx, id)
		return err == nil && slices.ContainsFunc(a.Health.Positions, func(p client.Position) bool { return p.Pool == "btc" && p.Collateral == "100000000" })
	})
	vaults := c.vaults(0)
	step("1 BTC is deposited")
	pays := func(api int) {
		t.Helper()
		start := time.Now()
		cli(api, "withdraw", "0.01", "btc", "--to", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "--yes")
		c.until(3*time.Minute, "a payout", func() bool {
			st, err := c.at[api].Status(ctx)
			return err == nil && st.Open["QUEUED"]+st.Open["PLANNED"] == 0
		})
		step(fmt.Sprintf("a payout, %.0f s", time.Since(start).Seconds()))
	}

	line := c.join(5)
	step("node-5 is made and started")
	c.vote([]int{1, 2, 3}, "admit", line.ID, "--name", line.Name, "--operator", line.Operator, "--addr", line.Addr, "--text", "a fifth operator")
	height := c.status(0).Applied
	c.until(time.Minute, "node-5 follows the log", func() bool { return c.status(4).Applied >= height })
	step("node-5 follows the log as a " + c.status(4).Role)
	pays(0)
	c.until(4*time.Minute, "epoch 2 in force everywhere", func() bool {
		return !slices.ContainsFunc(c.at, func(x *client.Client) bool { st, err := x.Status(ctx); return err != nil || st.Epoch < 2 })
	})
	step("epoch 2 is in force")
	if now := c.vaults(4); !slices.Equal(now, vaults) {
		t.Fatalf("addresses changed: %v, were %v", now, vaults)
	}
	if now := cli(4, "deposit-address", "btc")["address"]; now != address {
		t.Fatalf("deposit address %v, was %s", now, address)
	}
	c.until(time.Minute, "node-5 votes", func() bool { return c.status(4).Role != "non-voter" })
	step("node-5 votes")
	pays(4)

	// Node-2 leaves; node-5 dies while the keys are dealt anew, and payouts go on.
	if out := command(ctx, "node", "leave", "--dir", c.home(2)); out.Run() != nil {
		t.Fatalf("leave: %s", out.err.String())
	}
	c.until(2*time.Minute, "a session for key shares of epoch 3", func() bool {
		var l client.Sessions
		return c.at[4].Get(ctx, "/v1/sessions", nil, &l) == nil && slices.ContainsFunc(l.Sessions, func(s client.Session) bool { return len(s.Parties) > 3 })
	})
	_ = c.fifth.Process.Kill()
	_ = c.fifth.Wait()
	step("node-5 is killed in a resharing")
	pays(0)
	c.start(5)
	step("node-5 is back")
	c.until(5*time.Minute, "epoch 3 in force everywhere", func() bool {
		return !slices.ContainsFunc(c.at, func(x *client.Client) bool { st, err := x.Status(ctx); return err != nil || st.Epoch < 3 })
	})
	step("epoch 3 is in force")
	pays(4)
	c.until(time.Minute, "node-2 votes no more", func() bool { return c.status(1).Role == "non-voter" })
	if st := c.status(1); !strings.Contains(strings.Join(st.NotReady, "; "), "it was a member") || st.N != 4 {
		t.Errorf("node-2 after it left: n = %d, %v", st.N, st.NotReady)
	}
	if now := c.vaults(4); !slices.Equal(now, vaults) {
		t.Fatalf("addresses changed: %v, were %v", now, vaults)
	}
	step("node-2 holds no seat")

	// Node-3 dies for good, and a new machine takes its seat without its help.
	cli(0, "testnet", "stop", "node-3", "--kill", "--dir", dir)
	line = c.join(6)
	c.vote([]int{1, 4, 5}, "replace", "node-3", line.ID, "--name", line.Name, "--operator", line.Operator, "--addr", line.Addr, "--urgent", "--text", "its machine is gone")
	seated := []int{0, 3, 4, 5}
	c.until(5*time.Minute, "epoch 4 in force", func() bool {
		return !slices.ContainsFunc(seated, func(i int) bool { return c.status(i).Epoch < 4 })
	})
	step("epoch 4 is in force: node-6 in the place of node-3")
	c.until(time.Minute, "node-6 votes", func() bool { return c.status(5).Role != "non-voter" && c.status(5).Role != "" })
	pays(5)
	if now := c.vaults(5); !slices.Equal(now, vaults) {
		t.Fatalf("addresses changed: %v, were %v", now, vaults)
	}
}

func (c *change) add(api string) {
	c.t.Helper()
	x, err := client.New(api, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.apis, c.at = append(c.apis, api), append(c.at, x)
}

func (c *change) status(i int) *client.Status {
	st, err := c.at[i].Status(c.ctx)
	if err != nil {
		return &client.Status{}
	}
	return st
}

func (c *change) vaults(i int) (all []string) {
	c.t.Helper()
	cl, err := c.at[i].Cluster(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, ch := range cl.Chains {
		for _, v := range ch.Vaults {
			all = append(all, ch.Name+"/"+v.Role+" "+v.Address)
		}
	}
	slices.Sort(all)
	return all
}

func (c *change) until(d time.Duration, what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			for i := range c.at {
				st := c.status(i)
				c.t.Logf("node-%d: epoch %d, %s, applied %d, lag %d, %s", i+1, st.Epoch, st.Role, st.Applied, st.Lag, strings.Join(st.NotReady, "; "))
			}
			c.t.Fatalf("not within %s: %s", d, what)
		}
	}
}

func (c *change) home(i int) string { return filepath.Join(c.dir, fmt.Sprint("node-", i)) }

// join makes node-i with the model of node-1 and starts it.
func (c *change) join(i int) client.Newcomer {
	c.t.Helper()
	cl, err := c.at[0].Cluster(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	name, api := fmt.Sprint("node-", i), fmt.Sprint("127.0.0.1:", freePort(c.t))
	cmd := command(c.ctx, "node", "join", "--dir", c.home(i), "--from", c.apis[0], "--genesis", cl.Genesis, "--name", name,
		"--operator", fmt.Sprint("operator-", i), "--listen", fmt.Sprint("/ip4/127.0.0.1/tcp/", freePort(c.t)), "--api", api,
		"--config", filepath.Join(c.home(1), "node.toml"), "--passphrase-file", filepath.Join(c.dir, "passphrase"), "--json")
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("join: %v\n%s", err, cmd.err.String())
	}
	var doc struct{ Seat client.Newcomer }
	if err := json.Unmarshal(cmd.out.Bytes(), &doc); err != nil {
		c.t.Fatal(err)
	}
	c.start(i)
	c.add("http://" + api)
	return doc.Seat
}

// start runs node-i beside the network's own nodes.
func (c *change) start(i int) *coffer {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, "logs", fmt.Sprint("node-", i, ".log")), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := command(c.ctx, "node", "start", "--dir", c.home(i), "--passphrase-file", filepath.Join(c.dir, "passphrase"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.fifth = cmd
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
	})
	return cmd
}

// vote has operators propose and agree: by[0] brings what words say, the others say
// yes to its hash.
func (c *change) vote(by []int, words ...string) {
	c.t.Helper()
	say := func(i int, words ...string) (said client.Said) {
		c.t.Helper()
		var cmd *coffer
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) { // the leader may have been the node just killed
			cmd = command(c.ctx, append(append([]string{"vote"}, words...), "--dir", c.home(i), "--json")...)
			err := cmd.Run()
			if err == nil {
				break
			}
			if !strings.Contains(cmd.err.String(), "ask again") || time.Now().After(end) {
				c.t.Fatalf("coffer vote %v: %v\n%s", words, err, cmd.err.String())
			}
		}
		if err := json.Unmarshal(cmd.out.Bytes(), &said); err != nil {
			c.t.Fatal(err)
		}
		return said
	}
	said := say(by[0], words...)
	for _, i := range by[1:] {
		c.until(20*time.Second, fmt.Sprintf("node-%d knows the proposal", i), func() bool { return c.status(i-1).Applied >= said.LogIndex })
		say(i, "yes", said.Hash)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
