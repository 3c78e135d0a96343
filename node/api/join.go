package api

import (
	"context"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
)

// genesis is what a node begins with that is to join.
func (s *server) genesis(_ context.Context, v view, _ *ReadInput) (*client.GenesisFile, error) {
	out := &client.GenesisFile{Genesis: hexOf(ledger.Marshal(v.Genesis)), SHA256: v.State.Cluster.String(), Peers: []client.Newcomer{}}
	for _, m := range v.Epoch().Members {
		out.Peers = append(out.Peers, client.Newcomer{ID: m.ID.String(), Name: m.Name, Operator: m.Operator, Addr: m.Addr})
	}
	return out, nil
}

// leave gives up this node's seat, with the only row that its own word may set.
func (c control) leave(ctx context.Context, _ *struct{}) (*said, error) {
	v := c.b.View()
	return c.say(ctx, ledger.KindLeave, ledger.Leave{Row: v.LeaveRow(c.b.Status().Member)}, "")
}
