//go:build unix

package testnet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/btcsuite/btcd/btcutil/base58"
	"github.com/coffer-network/coffer/consensus/raftbench"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"golang.org/x/sync/errgroup"
)

// RequestBench says what to measure.
type RequestBench struct {
	Clients  []int         // each that many clients, of whom each waits for its answer
	Duration time.Duration // of one measurement
	Rounds   int           // of all measurements in turn; the median counts
	Wallet   string        // whose signatures: solana, eth, btc or p2tr
	Without  []string      // etcd, rqlite: not measured
	Self     string        // the coffer binary
	Progress Progress
	Log      *slog.Logger
}

// RequestFigures are acknowledged requests a second.
type RequestFigures struct {
	Rows []RequestRow `json:"rows"`

	Request string  `json:"request"` // what each client signs, in turn
	Wallet  string  `json:"wallet"`
	Bytes   int     `json:"bytes"` // of a signed request, and of what the others write
	Seconds float64 `json:"seconds"`
	Rounds  int     `json:"rounds"`
	Cores   int     `json:"cores"`
}

// RequestRow is one number of clients; 0 is not measured.
type RequestRow struct {
	Clients int     `json:"clients"`
	Coffer  float64 `json:"coffer_per_s"`
	Etcd    float64 `json:"etcd_per_s"`
	Rqlite  float64 `json:"rqlite_per_s"`
	Raft    float64 `json:"raft_per_s"`
}

const (
	requestNodes   = 3
	benchRequest   = "Require payout list, yes and no in turn"
	benchLifetime  = 4 * time.Minute // of a request; the ledger allows ten
	settleBench    = 500 * time.Millisecond
	wakeBench      = 60 * time.Second
	signAhead      = 24    // requests of each client signed before the first measurement of it
	signAheadTotal = 20000 // and at most that many of all
)

// side is one system under measurement. All others are stopped meanwhile, so that each has the machine to itself.
type side struct {
	name    string
	procs   []*Proc
	prepare func(ctx context.Context, clients int) error
	run     func(ctx context.Context, clients int) (int64, error)
	rates   map[int][]float64
}

// Run measures the sides in turn, so that the ratios hold on any machine and the figures on this one.
func (b RequestBench) Run(ctx context.Context) (f RequestFigures, err error) {
	if err := b.check(); err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp("", "coffer-bench-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	f = RequestFigures{Request: benchRequest, Wallet: b.Wallet, Seconds: b.Duration.Seconds(), Rounds: b.Rounds, Cores: runtime.NumCPU()}
	coffer, stop, err := b.coffer(ctx, filepath.Join(dir, "net"))
	defer stop()
	if err != nil {
		return f, err
	}
	f.Bytes = coffer.bytes
	sides := []*side{coffer.side(b.Duration)}
	etcd, err := b.etcd(ctx, filepath.Join(dir, "etcd"), f.Bytes)
	defer etcd.kill()
	if err != nil {
		return f, err
	}
	rqlite, err := b.rqlite(ctx, filepath.Join(dir, "rqlite"), f.Bytes)
	defer rqlite.kill()
	if err != nil {
		return f, err
	}
	sides = append(sides, etcd, rqlite, b.raft(filepath.Join(dir, "raft"), f.Bytes))
	if err := b.measure(ctx, sides); err != nil {
		return f, err
	}
	for _, n := range b.Clients {
		f.Rows = append(f.Rows, RequestRow{n, sides[0].median(n), etcd.median(n), rqlite.median(n), sides[3].median(n)})
	}
	return f, nil
}

func (b RequestBench) check() error {
	for _, n := range b.Clients {
		if n < 1 || n > 256 {
			return fmt.Errorf("%d clients, want 1 to 256", n)
		}
	}
	for _, w := range b.Without {
		if w != "etcd" && w != "rqlite" {
			return fmt.Errorf("without %q: want etcd or rqlite", w)
		}
	}
	if len(b.Clients) == 0 || b.Rounds < 1 || b.Duration < 100*time.Millisecond || b.Duration > time.Minute {
		return fmt.Errorf("%v clients, %d rounds of %s: want some, at least one, and 100ms to 1m", b.Clients, b.Rounds, b.Duration)
	}
	return nil
}

func (b RequestBench) measure(ctx context.Context, sides []*side) (err error) {
	task := b.Progress.Begin("requests, all sides in turn", Size{Total: int64(len(sides) * len(b.Clients) * b.Rounds)})
	defer func() { task.End(err) }()
	for _, s := range sides {
		s.signal(syscall.SIGSTOP)
		defer s.signal(syscall.SIGCONT)
	}
	for range b.Rounds {
		for _, n := range b.Clients {
			for _, s := range sides {
				if s.run == nil {
					task.Add(1)
					continue
				}
				s.signal(syscall.SIGCONT)
				if err := s.prepare(ctx, n); err != nil {
					return fmt.Errorf("%s, %d clients: %w", s.name, n, err)
				}
				runtime.GC()
				done, err := s.run(ctx, n)
				if err != nil {
					return fmt.Errorf("%s, %d clients: %w", s.name, n, err)
				}
				s.signal(syscall.SIGSTOP)
				s.rates[n] = append(s.rates[n], float64(done)/b.Duration.Seconds())
				task.Add(1)
			}
		}
	}
	return nil
}

func (s *side) signal(sig syscall.Signal) {
	for _, p := range s.procs {
		_ = p.Signal(sig) // one that died shows in the measurement
	}
}

func (s *side) kill() {
	for _, p := range s.procs {
		p.Kill()
	}
}

func (s *side) median(clients int) float64 {
	r := slices.Sorted(slices.Values(s.rates[clients]))
	if len(r) == 0 {
		return 0
	}
	return r[(len(r)-1)/2]
}

func (b RequestBench) without(name string) bool { return slices.Contains(b.Without, name) }

// cofferSide is a whole network with an account for every client.
type cofferSide struct {
	net   *Network
	rules *address.Grammar
	users []*benchUser
	bytes int
}

// benchUser has one account and its requests at one node.
type benchUser struct {
	api     *client.Client
	signer  client.Signer
	account [16]byte
	nonce   uint64 // of the next to be signed
	ready   []client.Submission
}

func (b RequestBench) coffer(ctx context.Context, dir string) (*cofferSide, func(), error) {
	net, err := Start(ctx, Options{Dir: dir, N: requestNodes, M: 2, F: 0, Self: b.Self, Progress: b.Progress, Log: b.Log})
	if err != nil {
		return nil, func() {}, err
	}
	c := &cofferSide{net: net}
	return c, net.Stop, c.open(ctx, b)
}

// open makes an account for each client.
func (c *cofferSide) open(ctx context.Context, b RequestBench) (err error) {
	most := slices.Max(b.Clients)
	task := b.Progress.Begin("accounts of the clients", Size{Total: int64(most)})
	defer func() { task.End(err) }()
	cl, err := c.net.Nodes[0].Client.Cluster(ctx)
	if err != nil {
		return err
	}
	pin, err := client.NewPin(cl)
	if err != nil {
		return err
	}
	if c.rules, err = c.net.Nodes[0].Client.Grammar(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	c.users = make([]*benchUser, most)
	for i := range c.users {
		signer, err := b.signer(pin, c.net.Genesis.Wallets)
		if err != nil {
			return err
		}
		u := &benchUser{api: c.net.Nodes[i%len(c.net.Nodes)].Client, signer: signer, account: address.AccountID(cl.Cluster, signer.ID())}
		c.users[i] = u
		g.Go(func() error {
			defer task.Add(1)
			cmd := address.Command{Action: address.ActionOpenAccount, Account: u.account, Cluster: cl.Cluster, Signer: signer.ID()}
			s, err := u.sign(c.rules, cmd)
			if err != nil {
				return err
			}
			u.nonce = 1
			_, err = u.api.SubmitText(gctx, s, accountHex(u.account))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("open account: %w", err)
	}
	s, err := c.users[0].next(c.rules, cl.Cluster)
	if err != nil {
		return err
	}
	c.users[0].ready = append(c.users[0].ready, s)
	body, err := json.Marshal(s)
	c.bytes = len(body)
	return err
}

func (b RequestBench) signer(pin *client.Pin, foreign []string) (client.Signer, error) {
	if b.Wallet != "solana" {
		w, err := client.NewWallet(pin)
		if err != nil {
			return nil, err
		}
		return w.Signer(b.Wallet)
	}
	i := slices.IndexFunc(foreign, func(c string) bool { return strings.HasPrefix(c, address.NamespaceSolana+":") })
	if i < 0 {
		return nil, errors.New("this network takes no Solana wallets")
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	id, err := address.SplitCAIP10(foreign[i] + ":" + base58.Encode(pub))
	return solanaSigner{key, id}, err
}

// solanaSigner signs as a Solana wallet signs a message.
type solanaSigner struct {
	key ed25519.PrivateKey
	id  address.CAIP10
}

func (s solanaSigner) ID() address.CAIP10 { return s.id }
func (s solanaSigner) Scheme() string     { return address.SchemeSolana }
func (s solanaSigner) Sign(text string) (string, error) {
	return base58.Encode(ed25519.Sign(s.key, []byte(text))), nil
}
func (s solanaSigner) String() string   { return s.id.String() }
func (s solanaSigner) GoString() string { return s.id.String() }

func accountHex(id [16]byte) string { return fmt.Sprintf("%x", id) }

func (u *benchUser) sign(g *address.Grammar, cmd address.Command) (client.Submission, error) {
	cmd.Expires = time.Now().Add(benchLifetime).Unix()
	text := g.Render(&cmd)
	sig, err := u.signer.Sign(text)
	return client.Submission{Text: text, Signed: client.Signed{Scheme: u.signer.Scheme(), Signature: sig}}, err
}

// next signs the request after the last one: each changes what the one before it said.
func (u *benchUser) next(g *address.Grammar, cluster string) (client.Submission, error) {
	s, err := u.sign(g, address.Command{
		Action: address.ActionRequirePayoutList, On: u.nonce%2 == 1, Account: u.account, Cluster: cluster, Nonce: u.nonce, Signer: u.signer.ID(),
	})
	u.nonce++
	return s, err
}

func (c *cofferSide) side(d time.Duration) *side {
	s := &side{name: "coffer", procs: c.net.procs(), rates: map[int][]float64{}}
	rate := map[int]int{}
	s.prepare = func(ctx context.Context, clients int) error { return c.prepare(ctx, clients, rate[clients]) }
	s.run = func(ctx context.Context, clients int) (int64, error) {
		n, err := c.run(ctx, clients, d)
		rate[clients] = int(n)
		return n, err
	}
	return s
}

// prepare waits until the cluster takes requests again and has the wallets sign: that is their owners' work, not the
// cluster's. A client that needs more signs them while the clock runs.
func (c *cofferSide) prepare(ctx context.Context, clients, last int) error {
	wake, cancel := context.WithTimeout(ctx, wakeBench)
	defer cancel()
	cluster := c.net.Genesis.ClusterName()
	for _, u := range c.users { // what was signed long ago expires
		u.nonce -= uint64(len(u.ready))
		u.ready = nil
	}
	for i := range c.net.Nodes { // the first users are at different nodes
		u := c.users[i%len(c.users)]
		s, err := u.one(c.rules, cluster)
		if err == nil {
			_, err = u.api.SubmitText(wake, s, accountHex(u.account))
		}
		if err != nil {
			return fmt.Errorf("%s does not take requests again: %w", c.net.Nodes[i].Name, err)
		}
	}
	each := signAhead
	if last > 0 {
		each = last*3/2/clients + 8
	}
	each = min(each, signAheadTotal/clients)
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, u := range c.users[:clients] {
		g.Go(func() error {
			for len(u.ready) < each {
				s, err := u.next(c.rules, cluster)
				if err != nil {
					return err
				}
				u.ready = append(u.ready, s)
			}
			return nil
		})
	}
	err := g.Wait()
	time.Sleep(settleBench)
	return err
}

// one is the user's next request, signed before or now.
func (u *benchUser) one(g *address.Grammar, cluster string) (client.Submission, error) {
	if len(u.ready) > 0 {
		s := u.ready[0]
		u.ready = u.ready[1:]
		return s, nil
	}
	return u.next(g, cluster)
}

func (c *cofferSide) run(ctx context.Context, clients int, d time.Duration) (int64, error) {
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	end := time.Now().Add(d)
	for _, u := range c.users[:clients] {
		g.Go(func() error {
			for time.Now().Before(end) {
				s, err := u.one(c.rules, c.net.Genesis.ClusterName())
				if err != nil {
					return err
				}
				if _, err := u.api.SubmitText(ctx, s, accountHex(u.account)); err != nil {
					return err // a request that is not accepted ends the benchmark
				}
				if time.Now().Before(end) {
					done.Add(1)
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return done.Load(), err
}

// etcd is three members, driven by etcd's own client over gRPC.
func (b RequestBench) etcd(ctx context.Context, dir string, size int) (*side, error) {
	s := &side{name: "etcd", rates: map[int][]float64{}}
	if b.without("etcd") {
		return s, nil
	}
	bin, err := etcdServer.build(ctx, b.Progress)
	if err != nil {
		return s, err
	}
	put, err := etcdPut.build(ctx, b.Progress)
	if err != nil {
		return s, err
	}
	clients, peers, err := twoPorts("etcd")
	if err != nil {
		return s, err
	}
	var initial, endpoints []string
	for i := range requestNodes {
		initial = append(initial, fmt.Sprintf("n%d=http://%s", i, Loopback(peers[i])))
		endpoints = append(endpoints, Loopback(clients[i]))
	}
	for i := range requestNodes {
		client, peer := "http://"+Loopback(clients[i]), "http://"+Loopback(peers[i])
		p, err := StartProc(ctx, ProcConfig{Name: fmt.Sprintf("etcd-%d", i), Path: bin, Dir: dir, Args: []string{
			"--name", fmt.Sprintf("n%d", i), "--data-dir", filepath.Join(dir, strconv.Itoa(i)), "--log-level", "error",
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
			"--initial-advertise-peer-urls", peer, "--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
		}})
		if err != nil {
			return s, err
		}
		s.procs = append(s.procs, p)
	}
	load := func(ctx context.Context, clients int, d time.Duration) (int64, error) {
		cmd := exec.CommandContext(ctx, put, "-endpoints", strings.Join(endpoints, ","), "-clients", strconv.Itoa(clients),
			"-duration", d.String(), "-size", strconv.Itoa(size))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return 0, fmt.Errorf("%w: %s", err, lastLine(stderr.String()))
		}
		var r struct{ Puts int64 }
		return r.Puts, json.Unmarshal(out, &r)
	}
	s.prepare = func(ctx context.Context, _ int) error {
		return wake(ctx, func(ctx context.Context) error { _, err := load(ctx, 1, 100*time.Millisecond); return err })
	}
	s.run = func(ctx context.Context, clients int) (int64, error) { return load(ctx, clients, b.Duration) }
	return s, s.prepare(ctx, 1)
}

// rqlite is three members, driven over HTTP, its native protocol: one upsert by key is its put.
func (b RequestBench) rqlite(ctx context.Context, dir string, size int) (*side, error) {
	s := &side{name: "rqlite", rates: map[int][]float64{}}
	if b.without("rqlite") {
		return s, nil
	}
	bin, err := rqliteServer.build(ctx, b.Progress)
	if err != nil {
		return s, err
	}
	apis, rafts, err := twoPorts("rqlite")
	if err != nil {
		return s, err
	}
	var join []string
	for _, r := range rafts {
		join = append(join, Loopback(r))
	}
	for i := range requestNodes {
		p, err := StartProc(ctx, ProcConfig{Name: fmt.Sprintf("rqlite-%d", i), Path: bin, Dir: dir, Args: []string{
			"-node-id", strconv.Itoa(i + 1), "-http-addr", Loopback(apis[i]), "-raft-addr", Loopback(rafts[i]),
			"-bootstrap-expect", strconv.Itoa(requestNodes), "-join", strings.Join(join, ","), filepath.Join(dir, strconv.Itoa(i)),
		}})
		if err != nil {
			return s, err
		}
		s.procs = append(s.procs, p)
	}
	h := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}
	value := strings.Repeat("x", size)
	execute := func(ctx context.Context, node int, statement ...any) error {
		body, err := json.Marshal([]any{statement})
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+Loopback(apis[node])+"/db/execute", bytes.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		a, err := h.Do(r)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(a.Body, 1<<16))
		if err != nil || a.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"error"`)) {
			return fmt.Errorf("%s: %s (%w)", a.Status, answer, err)
		}
		return nil
	}
	s.prepare = func(ctx context.Context, _ int) error {
		return wake(ctx, func(ctx context.Context) error {
			for i := range requestNodes {
				if err := execute(ctx, i, "CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v TEXT)"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	s.run = func(ctx context.Context, clients int) (int64, error) {
		var done atomic.Int64
		g, ctx := errgroup.WithContext(ctx)
		end := time.Now().Add(b.Duration)
		for i := range clients {
			g.Go(func() error {
				for n := 0; time.Now().Before(end); n++ {
					v := fmt.Sprintf("%08d%s", n, value)[:size]
					if err := execute(ctx, i%requestNodes, "INSERT INTO kv(k,v) VALUES(?,?) ON CONFLICT(k) DO UPDATE SET v=excluded.v", fmt.Sprintf("client-%d", i), v); err != nil {
						return err
					}
					if time.Now().Before(end) {
						done.Add(1)
					}
				}
				return nil
			})
		}
		err := g.Wait()
		return done.Load(), err
	}
	return s, s.prepare(ctx, 1)
}

// raft is raft alone on our store.
func (b RequestBench) raft(dir string, size int) *side {
	var n int
	return &side{
		name: "raft", rates: map[int][]float64{},
		prepare: func(context.Context, int) error { return nil },
		run: func(_ context.Context, clients int) (int64, error) {
			n++
			at := filepath.Join(dir, strconv.Itoa(n)) // a new log each time
			done, err := raftbench.Run(at, clients, size, b.Duration)
			return done, errors.Join(err, os.RemoveAll(at))
		},
	}
}

func twoPorts(what string) (a, b [requestNodes]int, err error) {
	for i := range requestNodes {
		for _, to := range []*int{&a[i], &b[i]} {
			if *to, err = PickPort(PortWish{Purpose: what}); err != nil {
				return a, b, err
			}
		}
	}
	return a, b, nil
}

// wake tries until the system answers again.
func wake(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, wakeBench)
	defer cancel()
	var last error
	err := poll(ctx, func() (bool, error) {
		err := try(ctx)
		if err != nil && ctx.Err() == nil {
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	time.Sleep(settleBench)
	return nil
}
