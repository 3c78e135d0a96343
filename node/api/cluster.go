package api

import (
	"context"
	"strconv"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) cluster(api huma.API) {
	route(s, api, "get-cluster", "/v1/cluster", "What a client pins, and the cluster in figures", s.clusterInfo)
	route(s, api, "get-genesis", "/v1/genesis", "The cluster's genesis, and where today's members listen", s.genesis)
	route(s, api, "get-members", "/v1/members", "Seats of the epoch in force", s.memberList)
	route(s, api, "get-chains", "/v1/chains", "Chains as attested, and as this node follows them", s.chainList)
	route(s, api, "get-sessions", "/v1/sessions", "Signing sessions under way, as this node sees them", s.sessionList)
	route(s, api, "get-certificate", "/v1/certificates/{index}", "The newest certificate at or above a LogIndex", s.certificate)
	route(s, api, "get-status", "/v1/status", "This node, public part", s.status)
}

func (s *server) clusterInfo(_ context.Context, v view, _ *ReadInput) (*client.Cluster, error) {
	e := v.Epoch()
	return &client.Cluster{
		Cluster: v.ClusterName(), Genesis: v.State.Cluster.String(), Name: v.Genesis.Name, Brand: v.Genesis.Brand,
		Version: v.Version, Keys: v.keys(), Epoch: e.Number, N: e.N(), M: e.M, F: e.F, Q: e.Q(), FactQuorum: e.FactQuorum,
		Members: v.members(), Chains: v.chains(nil), Wallets: append([]string{}, v.Genesis.Wallets...), LedgerTime: v.now(), LogIndex: v.Height, Head: v.Head.String(),
		CatchingUp: v.Catching, Halted: v.OutflowsHalt, Paused: v.paused(), BorrowOff: v.BorrowOff,
	}, nil
}

func (v view) members() []client.Member {
	out := []client.Member{}
	for _, m := range v.Epoch().Members {
		seat, _ := v.Seats.Get(m.ID.String())
		c := client.Member{
			ID: m.ID.String(), Name: m.Name, Operator: m.Operator, LastHeard: atOrNil(seat.Heard),
			Present: v.present(seat), Heights: []client.Height{},
		}
		for _, h := range seat.Heights {
			c.Heights = append(c.Heights, client.Height{Chain: h.Chain, Height: h.Height, Hash: h.Hash})
		}
		if b, ok := v.Blamed.Get(m.ID.String()); ok {
			c.Blamed = &client.Blamed{
				Proofs: b.Count, Check: b.Newest.Check, Round: b.Newest.Round, Batch: b.Newest.Batch, Session: b.Newest.Session.String(),
				Evidence: b.Newest.Evidence.String(), At: at(b.Millis), LastUntil: atOrNil(v.LastUntil(m.ID)),
			}
		}
		out = append(out, c)
	}
	return out
}

// present: its clock is recent enough to be asked to sign first (spec: signing §3).
func (v view) present(seat ledger.Seat) bool {
	return seat.Millis != 0 && seat.Millis+v.Params.PresenceMillis >= v.Millis
}

func (s *server) memberList(_ context.Context, v view, _ *ReadInput) (*client.Members, error) {
	return &client.Members{Epoch: v.Epoch().Number, Members: v.members()}, nil
}

func (v view) chains(local []ChainStatus) []client.Chain {
	out := []client.Chain{}
	for _, c := range v.Genesis.Chains {
		tip, _ := v.Tips.Get(c.Name)
		x := client.Chain{
			Name: c.Name, CAIP2: c.CAIP2, Height: tip.Height, Reached: atOrNil(tip.Millis), Final: c.Final, Vaults: v.vaults(c.Name),
		}
		if r, ok := v.Rates.Get(c.Name); ok && r.Millis != 0 {
			age := v.age(r.Millis)
			x.Rate, x.Tip, x.RateAge = r.Rate, r.Tip, &age
		}
		for _, a := range x.Vaults {
			if f, ok := v.Senders.Get(a.Address); ok && f.Booked {
				if x.Floats == nil {
					x.Floats = map[string]string{}
				}
				x.Floats[a.Role] = f.Float.String()
			}
		}
		if c.Name == ledger.Bitcoin && v.Two.Booked {
			x.Floats = map[string]string{address.RolePool: strconv.FormatUint(v.Two.Float, 10)}
		}
		for _, l := range local {
			if l.Chain == c.Name {
				x.Local = &client.LocalChain{Height: l.Height, Final: l.Final, Read: l.Read.UTC(), Failing: l.Failing}
			}
		}
		out = append(out, x)
	}
	return out
}

func (s *server) chainList(_ context.Context, v view, _ *ReadInput) (*client.Chains, error) {
	return &client.Chains{Chains: v.chains(s.b.Status().Chains)}, nil
}

func (s *server) sessionList(context.Context, view, *ReadInput) (*client.Sessions, error) {
	return &client.Sessions{Sessions: s.running(0)}, nil
}

type certificateInput struct {
	ReadInput
	Index uint64 `path:"index" doc:"LogIndex"`
}

func (s *server) certificate(_ context.Context, v view, in *certificateInput) (*client.Certificate, error) {
	c, headers, ok := s.b.Certificate(in.Index)
	if !ok {
		return nil, s.problem(unknownCertificate, strconv.FormatUint(in.Index, 10))
	}
	out := &client.Certificate{
		Height: c.Approval.Height, Head: c.Approval.Head.String(), Epoch: c.Approval.Epoch,
		Certificate: hexOf(ledger.Marshal(c)), Signers: []string{}, Headers: []string{},
	}
	for _, sig := range c.Signatures {
		out.Signers = append(out.Signers, v.name(sig.Member))
	}
	for _, h := range headers {
		out.Headers = append(out.Headers, hexOf(ledger.Marshal(h)))
	}
	return out, nil
}

func (s *server) status(_ context.Context, v view, _ *ReadInput) (*client.Status, error) {
	out := s.statusOf(v)
	return &out, nil
}

// Spare is how many members are heard from beyond the m that signing needs;
// negative: signing waits for so many.
func Spare(s *ledger.State) int {
	v, n := view{s}, -s.Epoch().M
	for _, m := range s.Epoch().Members {
		if seat, _ := s.Seats.Get(m.ID.String()); v.present(seat) {
			n++
		}
	}
	return n
}

// drillEvery is how often a drill is due, ms (spec: committee §11).
const drillEvery = 30 * 86_400_000

func (s *server) statusOf(v view) client.Status {
	st, e := s.b.Status(), v.Epoch()
	out := client.Status{
		Name: st.Name, Member: st.Member.String(), Version: st.Version, Role: st.Role, Leader: st.Leader,
		Applied: v.Height, Ready: len(st.NotReady) == 0, NotReady: st.NotReady,
		Cluster: v.ClusterName(), Checkpoint: st.Checkpoint, Epoch: e.Number, N: e.N(), M: e.M, F: e.F,
		LedgerTime: v.now(), CatchingUp: v.Catching, Halted: v.OutflowsHalt, Paused: v.paused(),
		Members: v.members(), Chains: v.chains(st.Chains), Prices: map[string]*client.Price{}, Open: map[string]uint64{},
		OpenSince: map[string]time.Time{}, Caps: v.capsLeft(), Custody: v.custody(), BorrowOff: v.BorrowOff,
		Seats: v.seating(), Changes: v.pendingChanges(), Next: v.nextEpoch(), Dropped: v.droppedEpoch(),
		Local: client.LocalStatus{Sessions: len(s.b.Sessions()), Started: st.Started.UTC(), Keys: list(st.Keys), PreParams: st.PreParams, Halted: st.Halted},
	}
	if since, ok := v.Drilled(); since != 0 {
		out.DrillDue = atOrNil(since + drillEvery)
		if ok {
			out.Drilled = atOrNil(since)
		}
	}
	if st.Commit > v.Height {
		out.Lag = st.Commit - v.Height
	}
	out.MaySpare = Spare(v.State)
	for _, a := range v.Genesis.Assets {
		out.Prices[a.ID] = v.price(a.ID)
	}
	oldest := uint64(0)
	count := func(id uint64) {
		o, ok := v.Outflows.Get(id)
		if !ok {
			return
		}
		state := o.State.String()
		out.Open[state]++
		if t, ok := out.OpenSince[state]; !ok || at(o.Created).Before(t) {
			out.OpenSince[state] = at(o.Created)
		}
		if oldest == 0 || o.Created < oldest {
			oldest = o.Created
		}
	}
	for id := range v.Queue.All() {
		count(id)
	}
	for id := range v.Live.All() {
		b, _ := v.Batches.Get(id)
		for _, o := range b.Outflows {
			count(o)
		}
	}
	out.Oldest = atOrNil(oldest)
	return out
}

// custody is what is known of each asset's solvency.
func (v view) custody() []client.Custody {
	out := []client.Custody{}
	for _, a := range v.Genesis.Assets {
		row, _ := v.Solvency.Get(a.ID)
		b := row.Newest
		out = append(out, client.Custody{
			Asset: a.ID, Height: b.Height, Amount: b.Amount.String(), Leaving: b.Leaving.String(), Books: b.Books.String(),
			Nobodys: row.Unattributed.String(), AtGas: row.AtGas.String(), Missing: b.Missing().String(), Good: atOrNil(row.Good), Halted: row.Halt,
		})
	}
	return out
}

// halted is why nothing of an asset leaves, for want of coins or for everything's sake.
func (v view) halted(asset string) string {
	if v.OutflowsHalt != "" {
		return v.OutflowsHalt
	}
	return v.HaltOf(asset)
}

func (v view) capsLeft() []client.CapLeft {
	out := []client.CapLeft{}
	for _, a := range v.Genesis.Assets {
		hour, day := v.Capacities(a.ID)
		b, _ := v.Buckets.Get(a.ID)
		for _, x := range []struct {
			window          string
			capacity, drawn fixed.Int
		}{{"hour", hour, b.Hour.Amount}, {"day", day, b.Day.Amount}} {
			if !x.capacity.IsZero() {
				out = append(out, client.CapLeft{Asset: a.ID, Window: x.window, Capacity: x.capacity.String(), Left: minus(x.capacity, x.drawn).String()})
			}
		}
	}
	return out
}

func (s *server) nodeDetail(_ context.Context, v view, _ *ReadInput) (*client.NodeDetail, error) {
	return &client.NodeDetail{Status: s.statusOf(v), Operator: s.b.Status().Operator}, nil
}

// probes answer load balancers: healthz that the process answers, readyz that
// it should get traffic.
func (s *server) probes(api huma.API) {
	route(s, api, "healthz", "/healthz", "The process answers", func(context.Context, view, *ReadInput) (*client.Probe, error) {
		return &client.Probe{OK: true}, nil
	})
	route(s, api, "readyz", "/readyz", "The node should get traffic", func(context.Context, view, *ReadInput) (*client.Probe, error) {
		if why := s.b.Status().NotReady; len(why) > 0 {
			p := s.problem(overloaded, why[0])
			p.Detail = "not ready: " + why[0]
			return nil, p
		}
		return &client.Probe{OK: true}, nil
	})
}
