package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/p2p"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/tsstest"
)

// signers are four members that hold KeyShares and sign over a loopback, and one
// ledger that all of them see.
type signers struct {
	t     *testing.T
	c     *cluster
	b     ledger.Batch
	nodes []*Node // as c.keys
	net   *tss.Loopback
}

func newSigners(t *testing.T) *signers {
	t.Helper()
	return signersOver(t, func(x *signers, n *Node) tss.Transport { return x.net.Node(tss.PartyID(n.self)) })
}

// signersOver another transport than the loopback.
func signersOver(t *testing.T, transportOf func(*signers, *Node) tss.Transport) *signers {
	t.Helper()
	c, b := paying(t)
	k, _ := c.s.Keys.Get(ledger.KeyECDSA1)
	var parties []tss.PartyID
	for _, key := range c.keys {
		parties = append(parties, tss.PartyID(idOf(key)))
	}
	shares, err := tss.Deal(tss.Request{
		Cluster: c.s.Cluster, Key: tssKey(k.ID), Epoch: k.Epoch, Try: k.Try, Parties: parties, M: c.s.Epoch().M,
	}, tsstest.PreParams(4))
	if err != nil {
		t.Fatal(err)
	}
	x := &signers{t: t, c: c, b: b, net: tss.NewLoopback()}
	for i, key := range c.keys {
		n := nodeOf(t, c, i)
		n.cfg.Dir = t.TempDir()
		n.blames, n.cases, n.judged = map[ledger.MemberID]blamed{}, map[caseKey]*heldCase{}, map[ledger.MemberID]time.Time{}
		if err := n.keys.StageKeyShare(shares[parties[i]]); err != nil {
			t.Fatal(err)
		}
		if err := n.keys.Activate(shares[parties[i]].ID); err != nil {
			t.Fatal(err)
		}
		if n.tss, err = tss.New(tss.Config{
			Identity: key, Cluster: c.s.Cluster, Keystore: n.keys, Transport: transportOf(x, n), InProcess: true,
			JoinWait: 30 * time.Second, SilenceMin: time.Minute,
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.tss.Close)
		x.net.Attach(parties[i], n.tss)
		x.nodes = append(x.nodes, n)
	}
	return x
}

func (x *signers) node(m ledger.MemberID) *Node {
	return x.nodes[slices.IndexFunc(x.nodes, func(n *Node) bool { return n.self == m })]
}

// session runs one turn among its committee until one of them is through or
// fails; it returns that one's error.
func (x *signers) session(turn uint64) (witness *Node, r tss.Request, err error) {
	x.t.Helper()
	j := job{x.b, x.b.Newest(), x.b.Kind}
	committee := j.attempt.Committee(turn)
	ctx, cancel := context.WithCancel(x.t.Context())
	type end struct {
		n   *Node
		err error
	}
	ends := make(chan end, len(committee))
	for _, m := range committee {
		n := x.node(m)
		ins, _, err := n.inputs(x.c.s, j)
		if err != nil {
			x.t.Fatal(err)
		}
		if r, err = n.request(j, 0, turn, ins[0], committee); err != nil {
			x.t.Fatal(err)
		}
		r.Deadline = 5 * time.Minute // on a busy machine
		req := r
		go func() {
			_, err := n.tss.Sign(ctx, req)
			ends <- end{n, err}
		}()
	}
	first := <-ends
	if first.err != nil {
		cancel() // the others wait for an answer that will not come
	}
	for range committee[1:] {
		<-ends
	}
	cancel()
	return first.n, r, first.err
}

// publish lets every node see the ledger as it is.
func (x *signers) publish() {
	for _, n := range x.nodes {
		n.app.publish()
	}
}

// speak is what a node wants to say of others.
func (x *signers) speak(n *Node) (out []ledger.Blame) {
	n.mu.Lock()
	blames := n.provenLocked()
	n.mu.Unlock()
	v, _ := n.app.now()
	for _, s := range planAttestations(v, world{self: n.self, blames: blames}) {
		if s.kind == ledger.KindBlame {
			out = append(out, s.body.(ledger.Blame))
		}
	}
	return out
}

// wire is an envelope as it stands in a frame (spec: signing §9).
type wire struct {
	Session [32]byte `cbor:"1,keyasint"`
	Epoch   uint64   `cbor:"2,keyasint"`
	Batch   uint64   `cbor:"3,keyasint"`
	Attempt uint64   `cbor:"4,keyasint"`
	Input   uint16   `cbor:"5,keyasint"`
	Turn    uint16   `cbor:"6,keyasint"`
	Round   uint8    `cbor:"7,keyasint"`
	Role    uint8    `cbor:"8,keyasint"`
	Type    string   `cbor:"9,keyasint"`
	From    [32]byte `cbor:"10,keyasint"`
	To      []byte   `cbor:"11,keyasint"`
	Seen    []byte   `cbor:"12,keyasint"`
	Payload []byte   `cbor:"13,keyasint"`
}

// resigned is a frame with another payload, signed by key.
func (x *signers) resigned(key ed25519.PrivateKey, frame []byte, change func(*wire)) []byte {
	var w wire
	if err := ledger.Unmarshal(frame[1:len(frame)-ed25519.SignatureSize], &w); err != nil {
		x.t.Error(err)
		return frame
	}
	change(&w)
	b := append(frame[:1:1], ledger.Marshal(w)...)
	signed := slices.Concat([]byte("coffer/envelope/1"), x.c.s.Cluster[:], b)
	return append(b, ed25519.Sign(key, signed)...)
}

// unknownField makes a payload what no honest party encodes.
func unknownField(w *wire) { w.Payload = append(bytes.Clone(w.Payload), 0xfa, 1, 0) }

// firstToOne is the code of the first message of ECDSA signing, one to each peer.
const firstToOne = 16

// The whole way of a traitor: in a session of three it sends a bad message to one
// party alone, the least that anybody sees. That party shows it, members that
// were in no session judge it, f+1 words are in the ledger, and the next payments
// begin with committees without it. Seen failing without accuse in noteBlame
// ("shown to 0"), without blames in planAttestations ("of 3 honest members 0
// speak") and with the ledger's roster not asking for the blamed ("begins with the
// traitor").
func TestTraitorIsPassedOver(t *testing.T) {
	x := newSigners(t)
	c := x.c
	culprit := x.b.Newest().Roster[0]
	traitor := x.node(culprit)
	parties := x.b.Newest().Committee(0)
	victim := parties[slices.IndexFunc(parties, func(m ledger.MemberID) bool { return m != culprit })]
	x.net.Filter = func(from, to tss.PartyID, frame []byte) []byte {
		if ledger.MemberID(from) == culprit && ledger.MemberID(to) == victim && frame[0] == firstToOne {
			return x.resigned(traitor.key, frame, unknownField)
		}
		return frame
	}
	witness, r, err := x.session(0)
	var blame *tss.Blame
	if !errors.As(err, &blame) || !blame.Proven || witness.self != victim {
		t.Fatalf("%v", err)
	}
	witness.noteBlame(err, r)
	shown := 0
	for _, h := range witness.cases {
		for m := range h.todo {
			shown++
			if _, err := x.node(m).takeCase(t.Context(), p2p.ID(witness.self), h.body); err != nil {
				t.Errorf("%s: %v", m, err)
			}
		}
	}
	if shown != 2 {
		t.Fatalf("shown to %d, want the 2 others", shown)
	}
	spoke := 0
	for i, n := range x.nodes {
		for _, f := range x.speak(n) {
			if f.Member != culprit || f.Check != "A1" || f.Batch != x.b.ID || n == traitor {
				t.Errorf("node %d says %+v", i, f)
			}
			if spoke++; spoke <= 2 {
				if c.s.LastUntil(culprit) != 0 {
					t.Error("one word is enough")
				}
				c.say(i, ledger.KindBlame, f)
			}
		}
	}
	if spoke != 3 || c.s.LastUntil(culprit) == 0 {
		t.Fatalf("of 3 honest members %d speak, last until %d", spoke, c.s.LastUntil(culprit))
	}
	x.publish()
	for i, n := range x.nodes {
		if f := x.speak(n); len(f) != 0 {
			t.Errorf("node %d goes on saying %+v", i, f)
		}
	}
	g := c.s.Grammar()
	for i := range 6 {
		id := walletOf(t, 10+i)
		c.all(ledger.KindInflow, c.inflow(c.open(id), "btc", "100000000", fmt.Sprint("block-", 2+i)))
		c.mined()
		c.ask(id, address.Command{
			Action: address.ActionWithdraw, Amount: g.Amount("btc", "40000000"), Pool: "btc", To: walletOf(t, 99).id, MaxFee: g.Amount("btc", "10000"),
		})
		c.tick(1000)
	}
	later := 0
	for _, b := range c.live() {
		if b.Kind != ledger.BatchPay || b.ID == x.b.ID {
			continue
		}
		later++
		if a := b.Newest(); hasMember(a.Committee(0), culprit) || !slices.Equal(c.s.PassedOver(a), []ledger.MemberID{culprit}) {
			t.Errorf("batch %d begins with the traitor", b.ID)
		}
	}
	if later < 3 {
		t.Errorf("%d later payments: the test sees nothing", later)
	}
}

// Plants a member that accuses honest ones with all it can lay hands on: their
// own good messages, such messages changed, signed by itself in their name, or
// with another name of the session; of a batch nobody planned; garbage; and
// somebody without a seat, with true evidence. No node speaks. Seen failing with a
// verdict without the checks and with takeCase not asking for a seat ("believed").
func TestNobodyIsBlamedByAWord(t *testing.T) {
	x := newSigners(t)
	committee := x.b.Newest().Committee(0)
	accuser := x.nodes[slices.IndexFunc(x.nodes, func(n *Node) bool { return !hasMember(committee, n.self) })]
	judge := x.node(committee[0])
	innocent := x.node(committee[1])
	var mu sync.Mutex
	var said [][]byte
	x.net.Filter = func(from, _ tss.PartyID, frame []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if ledger.MemberID(from) == innocent.self && frame[0] >= firstToOne {
			said = append(said, bytes.Clone(frame))
		}
		return frame
	}
	_, r, err := x.session(0)
	if err != nil || len(said) < 5 {
		t.Fatalf("%v, %d messages", err, len(said))
	}
	named := func(change func(*tss.Request)) tss.Named {
		r := r
		change(&r)
		c, _ := (&tss.Blame{}).CaseOf(r)
		return c.Named
	}
	own := named(func(*tss.Request) {})
	n := 0
	try := func(what string, from *Node, body []byte) {
		t.Helper()
		n++
		clear(judge.judged)
		if _, err := judge.takeCase(t.Context(), p2p.ID(from.self), body); err == nil || len(judge.cases) != 0 || len(x.speak(judge)) != 0 {
			t.Errorf("%s: believed, %v, %d held", what, err, len(judge.cases))
			clear(judge.cases)
		}
	}
	show := func(named tss.Named, frames ...[]byte) []byte {
		return tss.Case{Named: named, Envelopes: frames}.Marshal()
	}
	for i, f := range said {
		other := said[(i+1)%len(said)]
		forged := x.resigned(accuser.key, f, unknownField)
		try("a good message", accuser, show(own, f))
		try("two good messages", accuser, show(own, other, f))
		try("forged", accuser, show(own, forged))
		try("forged beside the good one", accuser, show(own, f, forged))
		try("in another turn", accuser, show(named(func(r *tss.Request) { r.Turn++ }), f))
		try("of a resharing", accuser, show(named(func(r *tss.Request) { r.Kind = tss.Reshare }), f))
		changed := bytes.Clone(f)
		changed[len(f)-70]++
		try("changed", accuser, show(own, changed))
	}
	bad := x.resigned(innocent.key, said[0], unknownField) // as if it had
	strange := named(func(r *tss.Request) { r.Batch = 9_999 })
	of := r
	of.Batch = 9_999
	nowhere := x.resigned(innocent.key, said[0], func(w *wire) {
		unknownField(w)
		w.Batch, w.Session = 9_999, tss.SessionName(of)
	})
	try("of a batch nobody planned", accuser, show(strange, nowhere))
	try("nothing", accuser, nil)
	try("garbage", accuser, bytes.Repeat([]byte{0x9f}, 1000))
	try("true evidence of a stranger", &Node{self: ledger.MemberID{1}}, show(own, bad))
	if n < 40 {
		t.Errorf("%d cases tried", n)
	}

	// The same evidence of a member is taken; what comes on its heels waits.
	clear(judge.judged)
	if _, err := judge.takeCase(t.Context(), p2p.ID(accuser.self), show(own, bad)); err != nil || len(x.speak(judge)) != 1 {
		t.Errorf("true evidence: %v", err)
	}
	if _, err := judge.takeCase(t.Context(), p2p.ID(accuser.self), show(own, bad)); err == nil {
		t.Error("a second case at once")
	}
	// Sixteen sessions of one culprit are held, and each for ten minutes.
	v, _ := judge.app.now()
	for i := range byte(100) {
		judge.hold(v, ledger.Blame{Member: innocent.self, Session: ledger.Hash{i, 1}, Check: "A1", Batch: x.b.ID}, accuser.self, nil)
	}
	if len(judge.cases) != maxCases {
		t.Errorf("%d cases held", len(judge.cases))
	}
	for _, h := range judge.cases {
		h.at = h.at.Add(-caseLife - time.Second)
	}
	if len(x.speak(judge)) != 0 || len(judge.cases) != 0 {
		t.Errorf("after ten minutes %d are held", len(judge.cases))
	}
}
