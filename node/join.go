package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/coffer-network/coffer/consensus"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/p2p"
)

// JoinOptions make the directory of a node that is to join a running cluster.
type JoinOptions struct {
	Dir         string
	Passphrase  []byte
	Genesis     []byte          // canonical CBOR, checked by the caller against a hash that he was told
	Peers       []ledger.Member // today's members: whom this node gets the log from
	Name        string          // 1 to 32 bytes
	Listen      string          // multiaddr of the peer port
	API         string          // host:port
	Checkpoints []string        // HEIGHT:HEAD, told by other operators
	Model       string          // a node.toml with chain endpoints and price venues; "": Dir's own, or an unfinished one
}

// Check refuses what can be refused before anybody is asked and anything is made.
func (o JoinOptions) Check() error {
	if err := p2p.CheckAddr(o.Listen); err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	_, err := o.checkpoints()
	return err
}

func (o JoinOptions) checkpoints() ([]consensus.Checkpoint, error) {
	out := make([]consensus.Checkpoint, len(o.Checkpoints))
	for i, text := range o.Checkpoints {
		if err := out[i].UnmarshalText([]byte(text)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Join makes identity, keystore, genesis.cbor and node.toml, and returns the member
// id. It refuses a directory that holds a node. What is missing in node.toml is for
// the operator to fill in: Config.Validate names it.
func Join(o JoinOptions) (id ledger.MemberID, cluster ledger.Hash, err error) {
	var g ledger.Genesis
	if err := ledger.Unmarshal(o.Genesis, &g); err != nil {
		return id, cluster, fmt.Errorf("join: read genesis: %w", err)
	}
	cluster = sha256.Sum256(o.Genesis)
	if err := o.Check(); err != nil {
		return id, cluster, fmt.Errorf("join: %w", err)
	}
	c, err := o.config(g)
	if err != nil {
		return id, cluster, fmt.Errorf("join: %w", err)
	}
	if id, err = Init(o.Dir, o.Passphrase); err != nil {
		return id, cluster, fmt.Errorf("join: %w", err)
	}
	if err := SaveGenesis(o.Dir, g); err != nil {
		return id, cluster, fmt.Errorf("join: %w", err)
	}
	if err := c.Save(); err != nil {
		return id, cluster, fmt.Errorf("join: %w", err)
	}
	return id, cluster, nil
}

func (o JoinOptions) config(g ledger.Genesis) (c Config, err error) {
	from := o.Model
	if from == "" {
		from = o.Dir
	} else if from = filepath.Dir(from); filepath.Base(o.Model) != "node.toml" {
		return c, fmt.Errorf("%s: want the node.toml of a directory", o.Model)
	}
	switch c, err = LoadConfig(from); {
	case errors.Is(err, fs.ErrNotExist) && o.Model == "":
		for _, ch := range g.Chains {
			c.Chains = append(c.Chains, ChainConfig{Name: ch.Name})
		}
	case err != nil:
		return c, err
	}
	c.Dir, c.Name, c.Listen, c.API, c.Operator = o.Dir, o.Name, o.Listen, o.API, ""
	if c.Checkpoints, err = o.checkpoints(); err != nil {
		return c, err
	}
	c.Peers = map[string]string{}
	for _, m := range o.Peers {
		if m.Addr != "" && p2p.CheckAddr(m.Addr) == nil {
			c.Peers[m.ID.String()] = m.Addr
		}
	}
	if len(c.Peers) == 0 {
		return c, errors.New("no member's address is known: nobody to get the log from")
	}
	return c, os.MkdirAll(o.Dir, 0o700)
}
