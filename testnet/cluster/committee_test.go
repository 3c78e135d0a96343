package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/testnet"
	"github.com/coffer-network/coffer/tss/keystore"
)

var committee = flag.Bool("committee", false, "run the tests in which the committee of a running network changes: some ten minutes")

// change is a running network whose committee changes.
type change struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	apis []string
	at   []*client.Client // by node

	own map[int]*coffer // node-5 and node-6, which the network did not start

	began   time.Time
	vaults0 []string // as they were at first
	address string   // where the depositor sends BTC
}

// deposited is a network of four with 1 BTC in it.
func deposited(t *testing.T) *change {
	t.Helper()
	if !*committee {
		t.Skip("starts a whole network and makes its key shares anew, more than once: give -committee")
	}
	ctx, cancel := t.Context(), func() {}
	if end, ok := t.Deadline(); ok { // a test that is cut short leaves its nodes running
		ctx, cancel = context.WithDeadline(ctx, end.Add(-time.Minute))
	}
	t.Cleanup(cancel)
	c := &change{t: t, ctx: ctx, own: map[int]*coffer{}, dir: filepath.Join(t.TempDir(), "net"), began: time.Now()}
	up(t, ctx, c.dir)
	apis, err := testnet.APIs(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apis {
		c.add(a)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(logs(c.dir))
		}
	})
	c.step("a network of four")
	c.cli(0, "wallet", "new")
	c.cli(1, "account", "open")
	c.address = c.cli(2, "deposit-address", "btc")["address"].(string)
	c.cli(0, "testnet", "faucet", "BTC", c.address, "1", "--dir", c.dir)
	c.cli(0, "testnet", "mine", "6", "--dir", c.dir)
	id := c.cli(3, "account")["id"].(string)
	c.until("1 BTC credited", func() bool {
		a, err := c.at[3].Account(ctx, id)
		return err == nil && slices.ContainsFunc(a.Health.Positions, func(p client.Position) bool { return p.Pool == "btc" && p.Collateral == "100000000" })
	})
	c.vaults0 = c.vaults(0)
	c.step("1 BTC is deposited")
	return c
}

func (c *change) step(text string) {
	c.t.Helper()
	c.t.Logf("%4.0f s  %s", time.Since(c.began).Seconds(), text)
}

// cli runs a command as the depositor, at a node's API, and returns what it printed.
func (c *change) cli(api int, args ...string) (doc map[string]any) {
	c.t.Helper()
	c.run(&doc, []string{"COFFER_API=" + c.apis[api], "COFFER_WALLET=" + filepath.Join(c.dir, "alice.json")}, args...)
	return doc
}

// run runs a command into doc, again while it is answered that nobody leads, since who
// did may have been the node just stopped, or to come later.
func (c *change) run(doc any, env []string, args ...string) {
	c.t.Helper()
	var cmd *coffer
	c.until(fmt.Sprintf("coffer %v", args), func() bool {
		cmd = command(c.ctx, append(slices.Clone(args), "--json")...)
		cmd.Env = append(os.Environ(), env...)
		err := cmd.Run()
		text := cmd.err.String()
		if err != nil && !busy(text) {
			c.t.Fatalf("coffer %v: %v\n%s%s", args, err, cmd.out.String(), text)
		}
		return err == nil
	})
	if err := json.Unmarshal(cmd.out.Bytes(), doc); err != nil {
		c.t.Fatalf("coffer %v: %v\n%s", args, err, cmd.out.String())
	}
}

// pays has a payout asked for at a node, and made.
func (c *change) pays(api int) {
	c.t.Helper()
	start := time.Now()
	c.cli(api, "withdraw", "0.01", "btc", "--to", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "--yes")
	c.until("a payout", func() bool {
		st, err := c.at[api].Status(c.ctx)
		return err == nil && st.Open["QUEUED"]+st.Open["PLANNED"] == 0
	})
	c.step(fmt.Sprintf("a payout, %.0f s", time.Since(start).Seconds()))
}

// stay: a node shows the addresses of the beginning.
func (c *change) stay(i int) {
	c.t.Helper()
	if now := c.vaults(i); !slices.Equal(now, c.vaults0) {
		c.t.Fatalf("addresses changed: %v, were %v", now, c.vaults0)
	}
}

// held is what coffer key list says that a node holds and has not wiped; an error if
// it misses any.
func (c *change) held(i int) ([]client.KeyShare, error) {
	k, err := client.NewControl(c.home(i+1)).KeyShares(c.ctx, false)
	if err != nil {
		return nil, err
	}
	if len(k.Missing) > 0 {
		err = fmt.Errorf("missing: %v", k.Missing)
	}
	return slices.DeleteFunc(k.Shares, func(s client.KeyShare) bool { return s.State == "wiped" }), err
}

// inForce waits until nodes are in an epoch and sign with key shares that were made
// for one.
func (c *change) inForce(epoch, shares uint64, nodes ...int) {
	c.t.Helper()
	c.until(fmt.Sprintf("epoch %d in force with key shares of epoch %d", epoch, shares), func() bool {
		return !slices.ContainsFunc(nodes, func(i int) bool {
			st := c.status(i)
			held, err := c.held(i)
			signs := slices.DeleteFunc(held, func(s client.KeyShare) bool {
				return s.State != "active" && !strings.HasSuffix(s.Kept, "signs with it")
			})
			return st.Epoch != epoch || err != nil || len(signs) != 2 || signs[0].Epoch != shares || signs[1].Epoch != shares || st.Local.Halted != ""
		})
	})
	c.step(fmt.Sprintf("epoch %d is in force", epoch))
}

// TestCommitteeChanges takes a fifth node into a running network of four, lets one go
// again, gives a dead one's seat to a sixth, and has all of them lose power: with real
// processes and chains, payouts all the while, and the same addresses in the end. Seen
// failing with raft's voters no peers before the ledger knows them ("all lead or follow
// again"); on a machine so slow that a snapshot comes before, that is not seen.
func TestCommitteeChanges(t *testing.T) {
	c := deposited(t)
	ctx, dir, cli, pays, step, vaults, address := c.ctx, c.dir, c.cli, c.pays, c.step, c.vaults0, c.address

	line := c.join(5)
	step("node-5 is made and started")
	c.vote([]int{1, 2, 3}, "admit", line.ID, "--name", line.Name, "--operator", line.Operator, "--addr", line.Addr, "--text", "a fifth operator")
	height := c.answer(0).Applied
	c.until("node-5 follows the log", func() bool { return c.status(4).Applied >= height })
	step("node-5 follows the log as a " + c.status(4).Role)
	pays(0)
	c.until("epoch 2 in force everywhere", func() bool {
		return !slices.ContainsFunc(c.at, func(x *client.Client) bool { st, err := x.Status(ctx); return err != nil || st.Epoch < 2 })
	})
	step("epoch 2 is in force")
	if now := c.vaults(4); !slices.Equal(now, vaults) {
		t.Fatalf("addresses changed: %v, were %v", now, vaults)
	}
	if now := cli(4, "deposit-address", "btc")["address"]; now != address {
		t.Fatalf("deposit address %v, was %s", now, address)
	}
	c.until("node-5 votes", func() bool { st := c.status(4); return st.Member != "" && st.Role != "non-voter" })
	step("node-5 votes")
	pays(4)

	// Node-2 leaves; node-5 dies while the keys are dealt anew, and payouts go on.
	c.run(&client.Said{}, nil, "node", "leave", "--dir", c.home(2))
	c.until("a session for key shares of epoch 3", func() bool {
		var l client.Sessions
		return c.at[4].Get(ctx, "/v1/sessions", nil, &l) == nil && slices.ContainsFunc(l.Sessions, func(s client.Session) bool { return len(s.Parties) > 3 })
	})
	c.kill(5)
	step("node-5 is killed in a resharing")
	pays(0)
	c.start(5)
	step("node-5 is back")
	c.until("epoch 3 in force everywhere", func() bool {
		return !slices.ContainsFunc(c.at, func(x *client.Client) bool { st, err := x.Status(ctx); return err != nil || st.Epoch < 3 })
	})
	step("epoch 3 is in force")
	pays(4)
	c.until("node-2 votes no more", func() bool { return c.status(1).Role == "non-voter" })
	if st := c.answer(1); !strings.Contains(strings.Join(st.NotReady, "; "), "it was a member") || st.N != 4 {
		t.Errorf("node-2 after it left: n = %d, %v", st.N, st.NotReady)
	}
	if now := c.vaults(4); !slices.Equal(now, vaults) {
		t.Fatalf("addresses changed: %v, were %v", now, vaults)
	}
	step("node-2 holds no seat")

	c.until("epoch 3 is proven: the key shares before may go once there is no way back", func() bool {
		held, err := c.held(1)
		return err == nil && !slices.ContainsFunc(held, func(s client.KeyShare) bool { return strings.Contains(s.Kept, "no test signatures") })
	})

	// Node-3 dies for good, and a new machine takes its seat without its help.
	cli(0, "testnet", "stop", "node-3", "--kill", "--dir", dir)
	line = c.join(6)
	c.vote([]int{1, 4, 5}, "replace", "node-3", line.ID, "--name", line.Name, "--operator", line.Operator, "--addr", line.Addr, "--urgent", "--text", "its machine is gone")
	seated := []int{0, 3, 4, 5}
	c.until("epoch 4 in force", func() bool {
		return !slices.ContainsFunc(seated, func(i int) bool { return c.status(i).Epoch < 4 })
	})
	step("epoch 4 is in force: node-6 in the place of node-3")
	c.until("node-6 votes", func() bool { return c.status(5).Role != "non-voter" && c.status(5).Role != "" })
	pays(5)
	if now := c.vaults(5); !slices.Equal(now, vaults) {
		t.Fatalf("addresses changed: %v, were %v", now, vaults)
	}

	// Who left has followed the log, over another epoch too, until it wiped what it held.
	c.until("node-2 holds no key shares", func() bool {
		held, err := c.held(1)
		return err == nil && len(held) == 0
	})
	step("node-2 has wiped its key shares")

	// Everything loses power. The ledgers begin at their last snapshots, where half of
	// them know nothing of the other half's seats.
	for _, i := range []int{1, 4} {
		cli(0, "testnet", "stop", fmt.Sprint("node-", i), "--kill", "--dir", dir)
	}
	for _, i := range []int{5, 6} {
		c.kill(i)
	}
	for _, i := range []int{1, 4} {
		cli(0, "testnet", "start", fmt.Sprint("node-", i), "--dir", dir)
	}
	for _, i := range []int{5, 6} {
		c.start(i)
	}
	c.until("all lead or follow again", func() bool {
		return !slices.ContainsFunc(seated, func(i int) bool { st := c.status(i); return st.Epoch < 4 || st.Leader == "" })
	})
	step("all are back after a loss of power")
	pays(3)
}

// TestCommitteeTurnsOnItself has a running network of four deal its key shares anew,
// go back, and throw out the member that leads it, by the commands of operators:
// payouts go on at the same addresses, and what nothing needs is wiped from disk, no
// sooner. That shares of two generations do not sign together is tested in package
// tss (TestECDSAReshareAndMixedShares, TestEd25519MixedShares).
func TestCommitteeTurnsOnItself(t *testing.T) {
	c := deposited(t)
	all := []int{0, 1, 2, 3}
	c.vote([]int{1, 2, 3}, "refresh", "--text", "monthly")
	c.inForce(2, 2, all...)
	c.pays(0)
	c.stay(1)

	// Back to what was there before; what was made stays unused.
	c.vote([]int{4, 3, 2}, "rollback", "--text", "for the test's sake")
	c.inForce(3, 1, all...)
	for _, i := range all {
		held, err := c.held(i)
		if err != nil || len(held) != 4 || slices.ContainsFunc(held, func(s client.KeyShare) bool { return s.State != "active" && s.Kept == "" }) {
			t.Errorf("node-%d soon after a rollback: %+v, %v", i+1, held, err)
		}
	}
	// What signs now can be recovered, and the ledger hears of it; payouts go on meanwhile.
	drill := c.drill(3, 1, 0, 1, 2)
	c.pays(2)
	c.stay(3)
	c.drilled(<-drill, 0, 3)

	// Whoever leads is evicted against its will, and m and f fall with n.
	leads := -1
	c.until("somebody leads", func() bool {
		leads = slices.IndexFunc(all, func(i int) bool { return c.status(i).Role == "leader" })
		return leads >= 0
	})
	rest := slices.Delete(slices.Clone(all), leads, leads+1)
	name := fmt.Sprint("node-", leads+1)
	c.vote([]int{rest[0] + 1, rest[1] + 1, rest[2] + 1}, "evict", name, "--m", "2", "--f", "0", "--text", "for the test's sake")
	c.step(name + ", which leads, is voted out")
	c.pays(rest[0])
	c.inForce(4, 4, rest...)
	c.pays(rest[1])
	c.pays(rest[2])
	c.stay(rest[0])
	if st := c.answer(rest[0]); st.N != 3 || st.M != 2 || st.F != 0 || slices.ContainsFunc(st.Members, func(m client.Member) bool { return m.Name == name }) {
		t.Errorf("%d of %d after the eviction, f = %d: %+v", st.M, st.N, st.F, st.Members)
	}
	c.until(name+" is cut off", func() bool { st := c.status(leads); return st.Name != "" && st.Leader == "" })
	c.step(name + " is cut off: " + strings.Join(c.status(leads).NotReady, "; "))
	if cmd := command(c.ctx, "vote", "refresh", "--text", "let me in", "--timeout", "5s", "--dir", c.home(leads+1)); cmd.Run() == nil {
		t.Errorf("an evicted node's proposal was taken: %s", cmd.out.String())
	}
	// It asks for votes every second or two. A busy machine may change its leader by
	// itself now and then, but not all the time.
	led, since := "", time.Now()
	c.until(name+" unseats no leader for ten seconds", func() bool {
		switch now := c.status(rest[0]).Leader; {
		case now == name:
			t.Fatalf("%s leads those that evicted it", name)
		case now != led:
			led, since = now, time.Now()
		}
		return led != "" && time.Since(since) > 10*time.Second
	})

	c.until("the newest key shares alone are left", func() bool {
		return !slices.ContainsFunc(rest, func(i int) bool {
			held, err := c.held(i)
			return err != nil || len(held) != 2 || slices.ContainsFunc(held, func(s client.KeyShare) bool { return s.Epoch != 4 || s.State != "active" })
		})
	})
	c.step("old key shares are wiped")
	c.pays(rest[1])

	// On disk too, where the evicted one still has what it had.
	disk := c.onDisk(rest[0], rest[1])
	for id, state := range disk {
		want, again := keystore.Wiped, id
		again.Try++
		if _, failed := disk[again]; id.Epoch == 4 && !failed {
			want = keystore.Active
		}
		if state != want {
			t.Errorf("node-%d: %s is %s, want %s", rest[0]+1, id, state, want)
		}
	}
	for id, state := range c.onDisk(leads, rest[1]) {
		if id.Epoch > 2 || id.Epoch == 1 && state != keystore.Retired {
			t.Errorf("the evicted node: %s is %s", id, state)
		}
	}
}

// drill has the operators of nodes back them up, each while it is stopped, and prove
// together that they could sign, while the nodes run: what coffer node drill printed
// follows. The epoch is in force with key shares that were made for one.
func (c *change) drill(epoch, shares uint64, nodes ...int) <-chan []byte {
	c.t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		c.t.Fatal(err)
	}
	opens := filepath.Join(c.dir, "backups.age")
	if err := os.WriteFile(opens, []byte(id.String()+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	file := func(i int) string { return filepath.Join(c.dir, fmt.Sprintf("node-%d.backup", i+1)) }
	var others []string // all who drill, as --peer takes them
	for _, i := range nodes {
		name := fmt.Sprint("node-", i+1)
		others = append(others, fmt.Sprintf("%s=/ip4/127.0.0.1/tcp/%d", c.answer(i).Member, freePort(c.t)))
		c.cli(i, "testnet", "stop", name, "--dir", c.dir)
		var b struct {
			Epoch, Height uint64
			Keys          []struct {
				Epoch   uint64
				InForce bool `json:"in_force"`
			}
		}
		c.run(&b, nil, "node", "backup", "--dir", c.home(i+1), "--out", file(i), "--passphrase-file", filepath.Join(c.dir, "passphrase"), "--recipient", id.Recipient().String())
		signs := 0
		for _, k := range b.Keys {
			if k.InForce {
				signs++
			}
			if k.InForce != (k.Epoch == shares) {
				c.t.Errorf("%s: in its backup of epoch %d a key share of epoch %d is in force: %v", name, b.Epoch, k.Epoch, k.InForce)
			}
		}
		if b.Epoch != epoch || b.Height == 0 || signs != 2 {
			c.t.Errorf("%s: backup %+v", name, b)
		}
		c.until(name+" is back", func() bool {
			start := command(c.ctx, "testnet", "start", name, "--dir", c.dir)
			return start.Run() == nil || strings.Contains(start.err.String(), name+" runs")
		})
		c.until(name+" is back in its epoch", func() bool { st := c.status(i); return st.Epoch == epoch && st.Leader != "" })
	}
	c.step("backups")
	out := make(chan []byte, 1)
	var held sync.WaitGroup
	for x, i := range nodes {
		_, own, _ := strings.Cut(others[x], "=")
		args := []string{"node", "drill", "--backup", file(i), "--identity-file", opens, "--name", "of the test", "--listen", own, "--json"}
		for y, p := range others {
			if x != y {
				args = append(args, "--peer", p)
			}
		}
		cmd := command(c.ctx, args...)
		held.Go(func() {
			if err := cmd.Run(); err != nil {
				c.t.Errorf("node-%d: drill: %v\n%s", i+1, err, cmd.err.String())
			}
			if x == 0 {
				out <- cmd.out.Bytes()
			}
		})
	}
	c.t.Cleanup(held.Wait)
	return out
}

// drilled has a node tell the ledger of a drill, and another one know when it was.
func (c *change) drilled(printed []byte, by, at int) {
	c.t.Helper()
	file := filepath.Join(c.dir, "drill.json")
	if err := os.WriteFile(file, printed, 0o600); err != nil {
		c.t.Fatal(err)
	}
	if st := c.answer(at); st.Drilled != nil {
		c.t.Errorf("drilled before: %s", st.Drilled)
	}
	var said client.Said
	c.run(&said, nil, "drilled", file, "--dir", c.home(by+1))
	c.until("a drill in the status", func() bool { st := c.status(at); return st.Drilled != nil && st.DrillDue.After(*st.Drilled) })
	c.step("a drill of the key shares in force")
}

// onDisk stops one of the network's nodes and says what its keystore holds.
func (c *change) onDisk(i, other int) map[keystore.ShareID]keystore.ShareState {
	c.t.Helper()
	var id ledger.MemberID
	pass, err := os.ReadFile(filepath.Join(c.dir, "passphrase"))
	if err := errors.Join(err, id.UnmarshalText([]byte(c.answer(i).Member))); err != nil {
		c.t.Fatal(err)
	}
	c.cli(other, "testnet", "stop", fmt.Sprint("node-", i+1), "--dir", c.dir)
	ks, err := keystore.Open(filepath.Join(c.home(i+1), "keystore"), bytes.TrimSpace(pass), keystore.Options{Node: id})
	if err != nil {
		c.t.Fatal(err)
	}
	defer ks.Close()
	states, err := ks.ShareStates()
	if err != nil || len(states) == 0 {
		c.t.Fatalf("node-%d: %v, %v", i+1, states, err)
	}
	return states
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

// answer is a node's status, as soon as it gives one.
func (c *change) answer(i int) (st *client.Status) {
	c.t.Helper()
	c.until(fmt.Sprintf("node-%d answers", i+1), func() bool {
		st = c.status(i)
		return st.Member != ""
	})
	return st
}

func (c *change) vaults(i int) (all []string) {
	c.t.Helper()
	var cl *client.Cluster
	c.until(fmt.Sprintf("node-%d answers", i+1), func() (ok bool) {
		var err error
		cl, err = c.at[i].Cluster(c.ctx)
		return err == nil
	})
	for _, ch := range cl.Chains {
		for _, v := range ch.Vaults {
			all = append(all, ch.Name+"/"+v.Role+" "+v.Address)
		}
	}
	slices.Sort(all)
	return all
}

// patience is how long anything may take before it counts as never: how fast a
// network is depends on the machine, and is measured elsewhere (coffer bench, chaos).
const patience = 5 * time.Minute

func (c *change) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) || c.ctx.Err() != nil {
			for i := range c.at {
				st := c.status(i)
				c.t.Logf("node-%d: epoch %d, %s, applied %d, lag %d, %s", i+1, st.Epoch, st.Role, st.Applied, st.Lag, strings.Join(st.NotReady, "; "))
			}
			c.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func (c *change) home(i int) string { return filepath.Join(c.dir, fmt.Sprint("node-", i)) }

// join makes node-i with the model of node-1, and two members' checkpoints, and starts it.
func (c *change) join(i int) client.Newcomer {
	c.t.Helper()
	cl, err := c.at[0].Cluster(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	name, api := fmt.Sprint("node-", i), fmt.Sprint("127.0.0.1:", freePort(c.t))
	cmd := command(c.ctx, "node", "join", "--dir", c.home(i), "--from", c.apis[0], "--genesis", cl.Genesis, "--name", name,
		"--operator", fmt.Sprint("operator-", i), "--listen", fmt.Sprint("/ip4/127.0.0.1/tcp/", freePort(c.t)), "--api", api,
		"--config", filepath.Join(c.home(1), "node.toml"), "--passphrase-file", filepath.Join(c.dir, "passphrase"), "--json",
		"--checkpoint", c.answer(0).Checkpoint, "--checkpoint", c.answer(3).Checkpoint)
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

func (c *change) kill(i int) {
	_ = c.own[i].Process.Kill()
	_ = c.own[i].Wait()
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
	c.own[i] = cmd
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
		c.run(&said, nil, append(append([]string{"vote"}, words...), "--dir", c.home(i))...)
		return said
	}
	said := say(by[0], words...)
	for _, i := range by[1:] {
		c.until(fmt.Sprintf("node-%d knows the proposal", i), func() bool { return c.status(i-1).Applied >= said.LogIndex })
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
