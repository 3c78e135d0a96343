package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// GenesisFile is what a node that joins begins with.
type GenesisFile struct {
	Meta
	Genesis string     `json:"genesis" doc:"canonical CBOR in hex"`
	SHA256  string     `json:"sha256" doc:"its hash, which names the cluster"`
	Peers   []Newcomer `json:"peers" doc:"members of the epoch in force, and where they listen"`
}

// Genesis reads the cluster's genesis and today's members. The bytes are checked
// against hash, which the caller has from elsewhere; the peers are the node's word.
func (c *Client) Genesis(ctx context.Context, hash string) (cbor []byte, peers []Newcomer, err error) {
	g, err := get[GenesisFile](ctx, c, "/v1/genesis")
	if err != nil {
		return nil, nil, err
	}
	if cbor, err = hex.DecodeString(g.Genesis); err != nil {
		return nil, nil, fmt.Errorf("genesis of %s: %w", c.base, err)
	}
	if sum := sha256.Sum256(cbor); hex.EncodeToString(sum[:]) != hash {
		return nil, nil, fmt.Errorf("the genesis of %s has the hash %x, not the one given, %s: another cluster, or a node that lies", c.base, sum, hash)
	}
	return cbor, g.Peers, nil
}

// Leave has the node ask to give up its seat.
func (c *Control) Leave(ctx context.Context) (*Said, error) {
	return c.say(ctx, "/leave", struct{}{})
}
