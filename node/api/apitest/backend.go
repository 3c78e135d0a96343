package apitest

import (
	"context"
	"errors"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/client"
)

var _ api.Backend = (*Cluster)(nil)

// View is the applied state, frozen.
func (c *Cluster) View() *ledger.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

// Submit applies the command at once, unless held up.
func (c *Cluster) Submit(ctx context.Context, command []byte) (api.Outcome, error) {
	if c.leader != nil {
		return c.leader.Submit(ctx, command)
	}
	c.mu.Lock()
	s := c.stop
	c.mu.Unlock()
	if s != nil && s.err != nil {
		return api.Outcome{}, s.err
	}
	if s != nil {
		select {
		case <-s.until:
		case <-ctx.Done():
			return api.Outcome{}, ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.execute(command)
	return api.Outcome{Height: r.Header.Height, Code: r.Code}, nil
}

// Verdict judges at once, unless held up.
func (c *Cluster) Verdict(_ context.Context, check ledger.SignatureCheck) (bool, error) {
	c.mu.Lock()
	s := c.stop
	c.mu.Unlock()
	var o *api.Overloaded
	if s != nil && errors.As(s.err, &o) {
		return false, s.err
	}
	return check.Verify(), nil
}

// WaitHeight waits for that many commands.
func (c *Cluster) WaitHeight(ctx context.Context, height uint64) error {
	for {
		c.mu.Lock()
		done, next := c.view.Height >= height, c.applied
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ReadIndex is the applied height: there is one replica.
func (c *Cluster) ReadIndex(context.Context) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil && c.stop.err != nil {
		return 0, c.stop.err
	}
	return c.view.Height, nil
}

// Status is what Change made of it.
func (c *Cluster) Status() api.NodeStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Sessions, Signed and Sightings are what Note said.

func (c *Cluster) Sessions() []api.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

func (c *Cluster) Signed(batch uint64) []api.SignedSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signed[batch]
}

func (c *Cluster) Sightings(account ledger.AccountID) []api.Sighting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[account]
}

// Certificate certifies the applied head.
func (c *Cluster) Certificate(min uint64) (ledger.Certificate, []ledger.Header, bool) {
	v := c.View()
	if min > v.Height {
		return ledger.Certificate{}, nil, false
	}
	a := ledger.Approval{
		Cluster: v.Cluster, Epoch: v.Epoch().Number, Height: v.Height, Head: v.Head,
		RootHeight: v.RootHeight, Root: v.Root, Members: v.Epoch().MembersHash(),
	}
	cert := ledger.Certificate{Approval: a}
	for _, k := range c.members[:v.Epoch().Q()] {
		cert.Signatures = append(cert.Signatures, ledger.SignApproval(k, a))
	}
	return cert, nil, true
}

// Member is the cluster with the voice of its i-th member, for its operator.
func (c *Cluster) Member(i int) api.Controller { return member{c, i} }

type member struct {
	*Cluster
	i int
}

// KeyShares: an apitest cluster signs with whole keys and holds no KeyShares.
func (m member) KeyShares(context.Context, bool) (client.KeyShares, error) {
	return client.KeyShares{Shares: []client.KeyShare{}, Missing: []string{}}, nil
}

// Say has the member alone attest body.
func (m member) Say(_ context.Context, kind ledger.Kind, body any) (api.Outcome, error) {
	code := m.say(m.members[m.i], kind, body)
	return api.Outcome{Height: m.View().Height, Code: code}, nil
}
