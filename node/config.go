package node

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/alert"
	"github.com/pelletier/go-toml/v2"
)

// Config is what differs from node to node. What must be equal everywhere is
// in genesis. Unknown keys of the file are errors.
type Config struct {
	Dir      string `toml:"-"`              // data directory: node.toml, genesis.cbor, identity, keystore, raft
	Name     string `toml:"name,omitempty"` // of a node that is not in the genesis; else the genesis says it
	Listen   string `toml:"listen"`         // multiaddr of the one peer port
	API      string `toml:"api"`            // host:port of the public HTTP listener
	Operator string `toml:"operator"`       // host:port of the operators' listener, loopback; empty: none

	Chains []ChainConfig `toml:"chain"`
	Venues []string      `toml:"venues"` // public venues that are asked for prices: bitstamp, coinbase, kraken
	Prices []string      `toml:"prices"` // URLs of price servers besides, {asset} stands for the asset's symbol

	// What this node's operator adds to the ledger's rules; it can only be stricter
	// (spec: committee §5).
	Limits []Limit `toml:"limit,omitempty"`  // what this node signs at most
	Screen string  `toml:"screen,omitempty"` // URL of the operator's screening service; empty: none

	Strikes []StrikeConfig `toml:"strike,omitempty"` // commands that end every process (spec: consensus §1)

	Alerts []alert.Rule `toml:"alerts,omitempty"` // webhooks of this node's operator

	// TraitorOf makes this node a traitor of the cluster with this genesis hash,
	// which has to be a test network; "" in earnest, and no file can say otherwise.
	TraitorOf string `toml:"-"`

	// Peers are member id → multiaddr: where it differs from the ledger's, and from
	// whom a node gets the log that knows no member of today.
	Peers map[string]string `toml:"peers"`

	// Checkpoints are HEIGHT:HEAD of the chain, told by other operators (coffer status): a
	// node that begins, or was away while its committee changed, follows no other.
	Checkpoints []consensus.Checkpoint `toml:"checkpoints,omitempty"`

	Disk DiskLimits `toml:"disk"` // when this node's disk takes no more of clients

	FeeEvery   Duration `toml:"fee_every"`   // between fee attestations; default 60 s
	AliveAfter Duration `toml:"alive_after"` // silence after which a peer counts as gone; default 750 ms
	JoinWait   Duration `toml:"join_wait"`   // within which all parties of a session must have joined; default 700 ms
	Silence    Duration `toml:"silence"`     // least time a connected party of a session may be mute; default 3 s
	RaftMillis int      `toml:"raft_millis"` // heartbeat and election timeout; default 1000
}

// ChainConfig says where a chain's node answers.
type ChainConfig struct {
	Name     string `toml:"name"` // as in genesis
	URL      string `toml:"url"`
	User     string `toml:"user,omitempty"`
	Password string `toml:"password,omitempty"`
}

// Duration is a time.Duration spelled as in "5s"; "0s" means the default.
type Duration time.Duration

// UnmarshalText reads "5s".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v < 0 {
		err = fmt.Errorf("%s is negative", v)
	}
	*d = Duration(v)
	return err
}

// MarshalText writes "5s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d Duration) or(v time.Duration) time.Duration {
	if d == 0 {
		return v
	}
	return time.Duration(d)
}

// LoadConfig reads dir's node.toml.
func LoadConfig(dir string) (Config, error) {
	f, err := os.Open(dir + "/node.toml")
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	var c Config
	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return Config{}, fmt.Errorf("read %s: unknown key:\n%s", f.Name(), strict.String())
		}
		return Config{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	c.Dir = dir
	return c, nil
}

// Save writes node.toml, readable by its owner alone: it may hold a chain
// node's password.
func (c Config) Save() error {
	b, err := toml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(c.Dir+"/node.toml", b, 0o600)
}

// Validate checks the configuration against genesis.
func (c Config) Validate(g ledger.Genesis) error {
	for _, want := range g.Chains {
		found := false
		for _, have := range c.Chains {
			if have.Name == want.Name {
				u, err := url.Parse(have.URL)
				if err != nil || u.Host == "" {
					return fmt.Errorf("chain %s: url %q is not one", have.Name, have.URL)
				}
				found = true
			}
		}
		if !found {
			return fmt.Errorf("no endpoint for chain %s", want.Name)
		}
	}
	vs, err := openVenues(c, nil)
	if err != nil {
		return err
	}
	for _, a := range g.Assets {
		n := 0
		for _, v := range vs {
			if v.Lists(a.Symbol) {
				n++
			}
		}
		if n < minVenues {
			return fmt.Errorf("asset %s: %d of the price venues list %s, want at least %d", a.ID, n, a.Symbol, minVenues)
		}
	}
	if _, _, err := net.SplitHostPort(c.API); err != nil {
		return fmt.Errorf("api listener %q: %w", c.API, err)
	}
	if c.Operator != "" {
		host, _, err := net.SplitHostPort(c.Operator)
		if err != nil {
			return fmt.Errorf("operator listener %q: %w", c.Operator, err)
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("operator listener %q: want a loopback address", c.Operator)
		}
	}
	if _, err := c.strikes(g.Hash()); err != nil {
		return err
	}
	if len(c.Checkpoints) > consensus.MaxCheckpoints {
		return fmt.Errorf("%d checkpoints, at most %d", len(c.Checkpoints), consensus.MaxCheckpoints)
	}
	if err := c.Disk.validate(); err != nil {
		return err
	}
	if err := c.validatePolicy(g); err != nil {
		return err
	}
	return alert.Validate(c.Alerts, g)
}

func (c Config) settings() consensus.Settings {
	t := time.Duration(c.RaftMillis) * time.Millisecond
	return consensus.Settings{HeartbeatTimeout: t, ElectionTimeout: t}
}
