package testnet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/ethereum/go-ethereum/common"
)

// Options of a testnet. N, M and F matter when the directory is new; a resumed one keeps its own.
type Options struct {
	Dir              string
	N, M, F          int
	NoFaultTolerance bool
	Self             string // the coffer binary: nodes and the Ethereum node are started from it
	APIPort          int    // first node's API; the others follow; 0: any
	RaftMillis       int    // heartbeat and election timeout of the nodes; 0: the testnet's own
	Progress         Progress
	Log              *slog.Logger

	place placement // where nodes run; zero: on loopback
}

// Network is a running testnet.
type Network struct {
	Options
	Genesis  ledger.Genesis
	Bitcoin  *Bitcoin
	Ethereum *Ethereum
	Prices   *Prices
	Nodes    []*NodeProc
	Built    time.Time // end of the build: what the demo's seconds count from

	control *Control
	begin   sync.Mutex // held while a node is started that ended
	unlock  func()
	once    sync.Once
}

// NodeProc is one Coffer node of the network.
type NodeProc struct {
	Name   string
	API    string // base URL
	Client *client.Client

	config node.Config
	path   string

	mu   sync.Mutex
	proc *Proc
}

// saved is what a resumed network must find as it was: addresses are in genesis and in the nodes' configurations.
type saved struct {
	BitcoinRPC  int      `json:"bitcoinRpc"`
	BitcoinPeer int      `json:"bitcoinPeer"`
	Ethereum    int      `json:"ethereum"`
	Prices      int      `json:"prices"`
	Peers       []int    `json:"peers"`
	APIs        []int    `json:"apis"`
	Operators   []int    `json:"operators"`
	API         []string `json:"api"` // base URLs, for clients
}

const (
	networkFile    = "network.json"
	passphraseFile = "passphrase"
)

// APIs returns the base URLs of the nodes of the testnet in dir.
func APIs(dir string) ([]string, error) {
	s, err := loadSaved(dir)
	if err != nil {
		return nil, fmt.Errorf("find the testnet in %s: %w", dir, err)
	}
	return s.API, nil
}

func loadSaved(dir string) (saved, error) {
	var s saved
	b, err := os.ReadFile(filepath.Join(dir, networkFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// Start brings up chains, nodes and keys, in the order of spec chains, and returns when the network can lend. On an
// error everything it started is stopped.
func Start(ctx context.Context, o Options) (_ *Network, err error) {
	n := &Network{Options: o}
	if n.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	btcd, err := BuildBTCD(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	n.Built = time.Now()
	if n.unlock, err = LockDir(n.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.Stop()
		}
	}()
	s, err := loadSaved(n.Dir)
	fresh := errors.Is(err, os.ErrNotExist)
	if err != nil && !fresh {
		return nil, fmt.Errorf("resume %s: %w", n.Dir, err)
	}
	if fresh {
		if s, err = n.pickPorts(); err != nil {
			return nil, err
		}
	} else if err := checkPorts(s); err != nil {
		return nil, err
	}
	ids := make(chan error, 1)
	members := make([]ledger.MemberID, len(s.Peers))
	go func() { ids <- n.initNodes(fresh, members) }() // scrypt takes a second each

	task := o.Progress.Begin("starting Bitcoin and Ethereum", Size{Expected: 6 * time.Second})
	err = n.startChains(ctx, btcd, s)
	task.End(err)
	if e := <-ids; err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	if n.Prices, err = StartPrices(n.Dir, s.Prices); err != nil {
		return nil, err
	}
	if n.place.forward != nil {
		if err := n.place.forward([]int{s.BitcoinRPC, s.Ethereum, s.Prices}, s.APIs); err != nil {
			return nil, fmt.Errorf("join the nodes' networks: %w", err)
		}
	}
	if n.control, err = StartControl(ControlConfig{Dir: n.Dir, Bitcoin: n.Bitcoin, Ethereum: n.Ethereum, Prices: n.Prices, Nodes: n}); err != nil {
		return nil, err
	}
	if fresh {
		if err := n.writeGenesis(ctx, s, members); err != nil {
			return nil, err
		}
	}
	if n.Genesis, err = node.LoadGenesis(n.nodeDir(0)); err != nil {
		return nil, err
	}
	if err := n.startNodes(ctx, s); err != nil {
		return nil, err
	}
	return n, n.becomeReady(ctx)
}

func (n *Network) nodeDir(i int) string { return filepath.Join(n.Dir, nodeName(i)) }

func nodeName(i int) string { return "node-" + strconv.Itoa(i+1) }

func peerAddr(host string, port int) string { return "/ip4/" + host + "/tcp/" + strconv.Itoa(port) }

// placement puts nodes elsewhere than on loopback: the chaos run gives each a network of its own.
type placement struct {
	hosts   []string                  // addresses of the nodes for their peers
	enter   [][]string                // what comes before a node's command line
	forward func(out, in []int) error // serves loopback's ports where the nodes are, and node i's port in[i] here; nil: not needed
}

func (p placement) host(i int) string {
	if i < len(p.hosts) {
		return p.hosts[i]
	}
	return loopback
}

// command is the program and the arguments of node i.
func (p placement) command(i int, path string, args []string) (string, []string) {
	if i >= len(p.enter) {
		return path, args
	}
	all := append(append(append([]string{}, p.enter[i]...), path), args...)
	return all[0], all[1:]
}

func (n *Network) pickPorts() (saved, error) {
	var s saved
	if n.N < 3 || n.N > 10 {
		return s, fmt.Errorf("%d nodes, want 3 to 10: choose another --nodes", n.N)
	}
	pick := func(to *int, wish PortWish) error {
		p, err := PickPort(wish)
		*to = p
		return err
	}
	s.Peers, s.APIs, s.Operators = make([]int, n.N), make([]int, n.N), make([]int, n.N)
	errs := []error{
		pick(&s.BitcoinRPC, PortWish{Purpose: "Bitcoin RPC"}), pick(&s.BitcoinPeer, PortWish{Purpose: "Bitcoin peers"}),
		pick(&s.Ethereum, PortWish{Purpose: "Ethereum RPC"}), pick(&s.Prices, PortWish{Purpose: "price feed"}),
	}
	for i := range n.N {
		wish := PortWish{Purpose: "API of " + nodeName(i), Flag: "--api-port"}
		if n.APIPort != 0 {
			wish.Number = n.APIPort + i
		}
		errs = append(errs, pick(&s.APIs[i], wish), pick(&s.Peers[i], PortWish{Purpose: "peers of " + nodeName(i)}),
			pick(&s.Operators[i], PortWish{Purpose: "operator of " + nodeName(i)}))
		s.API = append(s.API, "http://"+Loopback(s.APIs[i]))
	}
	return s, errors.Join(errs...)
}

// checkPorts: a resumed network must find its ports free, since genesis and configurations name them.
func checkPorts(s saved) error {
	all := append([]int{s.BitcoinRPC, s.BitcoinPeer, s.Ethereum, s.Prices}, s.Peers...)
	all = append(append(all, s.APIs...), s.Operators...)
	for _, p := range all {
		if _, err := PickPort(PortWish{Purpose: "this network's", Number: p, Flag: "a fresh --dir"}); err != nil {
			return err
		}
	}
	return nil
}

// initNodes makes the nodes' identities and keystores, under one passphrase that only this testnet knows.
func (n *Network) initNodes(fresh bool, members []ledger.MemberID) error {
	if !fresh {
		return nil
	}
	var b [24]byte
	rand.Read(b[:])
	pass := hex.EncodeToString(b[:])
	if err := os.WriteFile(filepath.Join(n.Dir, passphraseFile), []byte(pass+"\n"), 0o600); err != nil {
		return err
	}
	for i := range members {
		id, err := node.Init(n.nodeDir(i), []byte(pass))
		if err != nil {
			return fmt.Errorf("init %s: %w", nodeName(i), err)
		}
		members[i] = id
	}
	return nil
}

func (n *Network) startChains(ctx context.Context, btcd string, s saved) error {
	// Made before both start at once: each would make its own, and Ethereum's genesis holds the faucet's address.
	if _, err := loadFaucetKeys(n.Dir); err != nil {
		return err
	}
	errs := make(chan error, 2)
	go func() {
		var err error
		n.Bitcoin, err = StartBitcoin(ctx, BitcoinConfig{
			Dir: n.Dir, BTCD: btcd, RPCPort: s.BitcoinRPC, PeerPort: s.BitcoinPeer, Every: bitcoinEvery, Log: n.Log,
		})
		errs <- err
	}()
	go func() {
		var err error
		n.Ethereum, err = StartEthereum(ctx, EthereumConfig{Dir: n.Dir, Command: []string{n.Self, "testnet", "ethnode"}, Port: s.Ethereum})
		errs <- err
	}()
	return errors.Join(<-errs, <-errs)
}

func (n *Network) writeGenesis(ctx context.Context, s saved, ids []ledger.MemberID) error {
	btc, err := n.Bitcoin.RPC().Height(ctx)
	if err != nil {
		return fmt.Errorf("read Bitcoin's height: %w", err)
	}
	eth, err := n.Ethereum.Client().BlockNumber(ctx)
	if err != nil {
		return fmt.Errorf("read Ethereum's height: %w", err)
	}
	members := make([]ledger.Member, len(ids))
	for i, id := range ids {
		members[i] = ledger.Member{ID: id, Name: nodeName(i), Operator: "operator-" + strconv.Itoa(i+1), Addr: peerAddr(n.place.host(i), s.Peers[i])}
	}
	g := genesisOf(n.Options, members, uint64(btc), eth, n.Ethereum.Token().Hex(), time.Now())
	for i := range ids {
		if err := node.SaveGenesis(n.nodeDir(i), g); err != nil {
			return err
		}
		c := nodeConfig(n.nodeDir(i), s.Peers[i], s.APIs[i], s.Operators[i], n.Bitcoin.RPC(), n.Ethereum.URL(), n.Prices.URL())
		c.Listen = peerAddr(n.place.host(i), s.Peers[i])
		if n.RaftMillis != 0 {
			c.RaftMillis = n.RaftMillis
		}
		if err := c.Save(); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, networkFile), append(b, '\n'), 0o600)
}

func (n *Network) startNodes(ctx context.Context, s saved) error {
	for i, api := range s.API {
		c, err := client.New(api, nil)
		if err != nil {
			return err
		}
		n.Nodes = append(n.Nodes, &NodeProc{Name: nodeName(i), API: api, Client: c})
	}
	errs := make(chan error, len(n.Nodes))
	for i := range n.Nodes {
		go func() { errs <- n.StartNode(ctx, i) }()
	}
	var all []error
	for range n.Nodes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// StartNode starts node i, or starts it again, with more flags if any.
func (n *Network) StartNode(ctx context.Context, i int, flags ...string) error {
	np := n.Nodes[i]
	args := append([]string{"node", "start", "--dir", n.nodeDir(i), "--passphrase-file", filepath.Join(n.Dir, passphraseFile)}, flags...)
	path, args := n.place.command(i, n.Self, args)
	p, err := StartProc(ctx, ProcConfig{
		Name: np.Name, Path: path, Dir: n.Dir, Args: args,
		Ready: func(ctx context.Context) error {
			_, err := np.Client.Status(ctx)
			return err
		},
	})
	if err != nil {
		return err
	}
	np.mu.Lock()
	defer np.mu.Unlock()
	np.proc = p
	return nil
}

// Proc is the node's present process.
func (p *NodeProc) Proc() *Proc {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc
}

// becomeReady watches the nodes generate their keys, funds the vaults and waits until the ledger has prices, fee rates
// and floats.
func (n *Network) becomeReady(ctx context.Context) error {
	task := n.Progress.Begin("pre-parameters (safe primes)", Size{Expected: 20 * time.Second})
	err := n.until(ctx, func(st *client.Status) bool {
		return st.Epoch > 0 || !strings.Contains(strings.Join(st.NotReady, " "), "pre-parameters")
	})
	task.End(err)
	if err != nil {
		return err
	}
	task = n.Progress.Begin("key generation, all members together", Size{Expected: 45 * time.Second})
	err = n.until(ctx, func(st *client.Status) bool { return st.Epoch > 0 })
	task.End(err)
	if err != nil {
		return err
	}
	task = n.Progress.Begin("floats, prices and fee rates", Size{Expected: 15 * time.Second})
	err = n.fundFloats(ctx)
	if err == nil {
		err = n.until(ctx, func(st *client.Status) bool { return st.Ready && len(st.Prices) >= 3 })
	}
	if err == nil {
		err = n.untilFloats(ctx)
	}
	task.End(err)
	return err
}

// until waits for every node's status; a node that dies ends the wait.
func (n *Network) until(ctx context.Context, done func(*client.Status) bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		all := true
		for _, np := range n.Nodes {
			st, err := np.Client.Status(ctx)
			all = all && err == nil && done(st)
		}
		if all {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-n.died():
			return err
		case <-tick.C:
		}
	}
}

// died receives the error of a child that ended without being asked to.
func (n *Network) died() <-chan error {
	c := make(chan error, 1)
	for _, p := range n.procs() {
		select {
		case <-p.Done():
			if err := p.Err(); err != nil {
				select {
				case c <- err:
				default:
				}
			}
		default:
		}
	}
	return c
}

// Wait returns when ctx ends or a chain node dies. That a node of the cluster died is told, and the others go on: this is
// what the network is there to show.
func (n *Network) Wait(ctx context.Context, say io.Writer) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	told := map[*Proc]bool{}
	for {
		for _, np := range n.Nodes {
			if p := np.Proc(); p.Err() != nil && !told[p] {
				told[p] = true
				fmt.Fprintf(say, "%v\nThe others go on. Start it again with: coffer testnet start %s --dir %s\n", p.Err(), np.Name, n.Dir)
			}
		}
		for _, p := range []*Proc{n.Bitcoin.Proc, n.Ethereum.Proc} {
			if err := p.Err(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// named is the number and process of a node that was started.
func (n *Network) named(name string) (int, *Proc, error) {
	for i, np := range n.Nodes {
		if p := np.Proc(); np.Name == name && p != nil {
			return i, p, nil
		}
	}
	return 0, nil, fmt.Errorf("no node %.40q was started here: names are node-1, node-2 and so on", name)
}

// End ends a node, at its own pace or with SIGKILL.
func (n *Network) End(ctx context.Context, name string, kill bool) error {
	_, p, err := n.named(name)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return fmt.Errorf("%s does not run", name)
	default:
	}
	if kill {
		p.Kill()
		return nil
	}
	return p.Stop(ctx)
}

// Begin starts a node that ended.
func (n *Network) Begin(ctx context.Context, name string) error {
	n.begin.Lock() // two at once would be two processes of one identity
	defer n.begin.Unlock()
	i, p, err := n.named(name)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return n.StartNode(ctx, i)
	default:
		return fmt.Errorf("%s runs", name)
	}
}

func (n *Network) procs() []*Proc {
	var ps []*Proc
	for _, np := range n.Nodes {
		if p := np.Proc(); p != nil {
			ps = append(ps, p)
		}
	}
	if n.Bitcoin != nil {
		ps = append(ps, n.Bitcoin.Proc)
	}
	if n.Ethereum != nil {
		ps = append(ps, n.Ethereum.Proc)
	}
	return ps
}

// fundFloats sends the operators' own coins, once: gas money to the two Ethereum
// vaults, and the pool's float.
func (n *Network) fundFloats(ctx context.Context) error {
	cl, err := n.Nodes[0].Client.Cluster(ctx)
	if err != nil {
		return err
	}
	want, _ := new(big.Int).SetString(floatWei, 10)
	for _, c := range cl.Chains {
		for _, v := range c.Vaults {
			if c.Name == ledger.Bitcoin && v.Role == address.RolePool {
				if err := n.fundPool(ctx, v.Address); err != nil {
					return err
				}
			}
			if c.Name != ledger.Ethereum {
				continue
			}
			to := common.HexToAddress(v.Address)
			have, err := n.Ethereum.Client().BalanceAt(ctx, to, nil)
			if err != nil {
				return fmt.Errorf("read balance of %s: %w", v.Role, err)
			}
			if have.Sign() > 0 {
				continue // a resumed network
			}
			if _, err := n.Ethereum.FundETH(ctx, to, want); err != nil {
				return fmt.Errorf("fund %s: %w", v.Role, err)
			}
		}
	}
	return nil
}

// poolFunded marks a network whose pool vault was sent its float.
const poolFunded = "pool-funded"

// fundPool sends the float of boosted Bitcoin payouts, once. Nobody waits for its
// confirmations: boosted payouts do.
func (n *Network) fundPool(ctx context.Context, to string) error {
	mark := filepath.Join(n.Dir, poolFunded)
	if _, err := os.Stat(mark); err == nil {
		return nil
	}
	for range poolCoins {
		if _, err := n.Bitcoin.Fund(ctx, to, poolCoinSats); err != nil {
			return fmt.Errorf("fund the pool vault: %w", err)
		}
	}
	return os.WriteFile(mark, nil, 0o600)
}

// untilFloats waits until a payout could be quoted: fee rates are agreed and the floats booked.
func (n *Network) untilFloats(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := n.floatsBooked(ctx); ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-n.died():
			return err
		case <-tick.C:
		}
	}
}

func (n *Network) floatsBooked(ctx context.Context) (bool, error) {
	cl, err := n.Nodes[0].Client.Cluster(ctx)
	if err != nil {
		return false, err
	}
	for _, c := range cl.Chains {
		if c.RateAge == nil || c.Name == ledger.Ethereum && len(c.Floats) < 2 {
			return false, nil
		}
	}
	return true, nil
}

// Stop ends every process in order, nodes first, and leaves the directory. It may be called more than once.
func (n *Network) Stop() {
	n.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if n.control != nil { // before the nodes, since it may start one
			n.note(n.control.Stop(ctx))
		}
		var wg sync.WaitGroup
		for _, np := range n.Nodes {
			if p := np.Proc(); p != nil {
				wg.Add(1)
				go func() {
					defer wg.Done()
					n.note(p.Stop(ctx))
				}()
			}
		}
		wg.Wait()
		if n.Prices != nil {
			n.note(n.Prices.Stop(ctx))
		}
		if n.Bitcoin != nil {
			n.note(n.Bitcoin.Stop(ctx))
		}
		if n.Ethereum != nil {
			n.note(n.Ethereum.Stop(ctx))
		}
		if n.unlock != nil {
			n.unlock()
		}
	})
}

func (n *Network) note(err error) {
	if err != nil && n.Log != nil {
		n.Log.Warn("stop", slog.Any("err", err))
	}
}
