package consensus

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/coffer-network/coffer/ledger"
)

// Members compare what a leader signed to each of them, and two signatures for one
// slot are a proof that convinces anybody (spec: consensus §6.5; slot.go says why an
// honest leader never gives them). It needs no f+1 complaints: who holds one shuns
// that leader at once and passes it on.
//
// Comparing finds a leader that shows its followers different entries while they hear
// each other. It is no part of what keeps payments apart: certificates are.

// ReasonEquivocated: the leader signed two entries for one slot, and this node holds
// both signatures. Nobody complains of it; whoever has the proof acts on it.
const ReasonEquivocated Reason = "signed-two-entries-for-one-slot"

// Proof is two signatures of one member for one slot and two entries.
type Proof struct {
	Cluster    ledger.Hash                    `cbor:"1,keyasint"`
	Leader     ledger.MemberID                `cbor:"2,keyasint"`
	Term       uint64                         `cbor:"3,keyasint"`
	Index      uint64                         `cbor:"4,keyasint"`
	Entries    [2]ledger.Hash                 `cbor:"5,keyasint"`
	Signatures [2][ed25519.SignatureSize]byte `cbor:"6,keyasint"`
}

// Convinces reports whether p proves its Leader a traitor of that cluster.
func (p Proof) Convinces(cluster ledger.Hash) bool {
	s := Slot{Cluster: p.Cluster, Leader: p.Leader, Term: p.Term, Index: p.Index}
	for i, e := range p.Entries {
		if s.Entry = e; !s.verify(p.Signatures[i]) {
			return false
		}
	}
	return p.Cluster == cluster && p.Entries[0] != p.Entries[1]
}

type signedSlot struct {
	Slot
	sig [ed25519.SignatureSize]byte
}

func (s signedSlot) against(o signedSlot) Proof {
	return Proof{s.Cluster, s.Leader, s.Term, s.Index, [2]ledger.Hash{s.Entry, o.Entry}, [2][ed25519.SignatureSize]byte{s.sig, o.sig}}
}

// GossipAccount is the kind of an account; HandleAccount takes its bodies.
const GossipAccount uint8 = 3

// Limits of what is remembered and said of slots.
//
// A follower checks and stores at most some thousand entries in the half second
// between two accounts, so a leader cannot have what it signed forgotten before it
// was compared by sending more. It can by leaping through terms, which nobody misses.
const (
	slotsPerGroup  = 16  // compared by one tag; shown as one answer
	maxGroups      = 256 // of a book: the last 4096 slots
	maxBooks       = 4   // terms of one leader
	bookLife       = 10 * time.Minute
	accountEvery   = 500 * time.Millisecond
	accountsPerSec = 4 // of one member, twice what it sends: they may come bunched
	accountBurst   = 8
	maxAccount     = 4 << 10 // bytes
	tagSize        = 2 + 4   // which slots, and their tag
	maxDigests     = 2
)

// book is what one leader signed to this node in one term.
type book struct {
	leader ledger.MemberID
	term   uint64
	groups map[uint64]*group // by index / slotsPerGroup
	top    uint64            // highest group
	last   time.Time         // heard
}

type group struct {
	held uint16 // bit i: slot i
	slot [slotsPerGroup]struct {
		entry ledger.Hash
		sig   [ed25519.SignatureSize]byte
	}
}

// at is what the book holds at an index.
func (b *book) at(index uint64, cluster ledger.Hash) (s signedSlot, ok bool) {
	g, i := b.groups[index/slotsPerGroup], index%slotsPerGroup
	if g == nil || g.held>>i&1 == 0 {
		return s, false
	}
	return signedSlot{Slot{cluster, b.leader, b.term, index, g.slot[i].entry}, g.slot[i].sig}, true
}

func (b *book) add(s signedSlot) {
	n, i := s.Index/slotsPerGroup, s.Index%slotsPerGroup
	if b.top >= maxGroups && n <= b.top-maxGroups {
		return
	}
	if n > b.top {
		b.top = n
		for old := range b.groups {
			if n >= maxGroups && old <= n-maxGroups {
				delete(b.groups, old)
			}
		}
	}
	g := b.groups[n]
	if g == nil {
		g = &group{}
		b.groups[n] = g
	}
	g.held |= 1 << i
	g.slot[i].entry, g.slot[i].sig = s.Entry, s.sig
}

// tag is a short hash of some slots of a group, of which the salt is said with it:
// nobody can make entries beforehand that differ and have one tag.
func (g *group) tag(salt []byte, which uint16) [4]byte {
	h := sha256.New()
	h.Write(salt)
	for i := range g.slot {
		if which>>i&1 == 1 {
			h.Write([]byte{byte(i)})
			h.Write(g.slot[i].entry[:])
		}
	}
	return [4]byte(h.Sum(nil))
}

// digest says of a book what its sender holds, from the top down: for each group which
// slots (2 bytes) and their tag (4).
type digest struct {
	Leader ledger.MemberID `cbor:"1,keyasint"`
	Term   uint64          `cbor:"2,keyasint"`
	Top    uint64          `cbor:"3,keyasint"`
	Salt   []byte          `cbor:"4,keyasint"` // 16 bytes, new each time
	Tags   []byte          `cbor:"5,keyasint"`
}

const saltSize = 16

func (b *book) digest() digest {
	d := digest{Leader: b.leader, Term: b.term, Top: b.top, Salt: make([]byte, saltSize)}
	_, _ = rand.Read(d.Salt) // never fails
	for i := uint64(0); i < maxGroups && i <= b.top; i++ {
		var which uint16
		var tag [4]byte
		if g := b.groups[b.top-i]; g != nil {
			which, tag = g.held, g.tag(d.Salt, g.held)
		}
		d.Tags = append(binary.BigEndian.AppendUint16(d.Tags, which), tag[:]...)
	}
	for len(d.Tags) > 0 && d.Tags[len(d.Tags)-tagSize] == 0 && d.Tags[len(d.Tags)-tagSize+1] == 0 {
		d.Tags = d.Tags[:len(d.Tags)-tagSize]
	}
	return d
}

func (d digest) valid() bool {
	return len(d.Salt) == saltSize && len(d.Tags)%tagSize == 0 && len(d.Tags) <= maxGroups*tagSize && uint64(len(d.Tags)/tagSize) <= d.Top+1
}

// differs lists the groups of which the sender of d holds something else. Of a group
// that this book lacks in part the other side will judge.
func (b *book) differs(d digest) (groups []uint64) {
	for i := range uint64(len(d.Tags) / tagSize) {
		t := d.Tags[i*tagSize:]
		which := binary.BigEndian.Uint16(t)
		g := b.groups[d.Top-i]
		if which == 0 || g == nil || g.held&which != which {
			continue
		}
		if tag := g.tag(d.Salt, which); !bytes.Equal(tag[:], t[2:tagSize]) {
			groups = append(groups, d.Top-i)
		}
	}
	return groups
}

// shown is all that the sender holds of one group.
type shown struct {
	Leader ledger.MemberID `cbor:"1,keyasint"`
	Term   uint64          `cbor:"2,keyasint"`
	Slots  []shownSlot     `cbor:"3,keyasint"` // at most slotsPerGroup
}

type shownSlot struct {
	Index     uint64                      `cbor:"1,keyasint"`
	Entry     ledger.Hash                 `cbor:"2,keyasint"`
	Signature [ed25519.SignatureSize]byte `cbor:"3,keyasint"`
}

// account is what a member tells the others of leaders: what it was sent, in short;
// in full the group in which somebody said something else; a proof that it holds.
type account struct {
	Digests []digest `cbor:"1,keyasint,omitempty"` // at most maxDigests
	Shown   *shown   `cbor:"2,keyasint,omitempty"`
	Proof   *Proof   `cbor:"3,keyasint,omitempty"`
}

// witness is all that evidence needs.
type witness struct {
	mu     sync.Mutex
	books  []*book // the newest last
	proofs map[ledger.MemberID]Proof
	answer *shown // to be told with the next account
	turn   int    // of accounts sent
	turns  turns
}

func newWitness() *witness {
	return &witness{proofs: map[ledger.MemberID]Proof{}, turns: turns{accountsPerSec, accountBurst, map[ledger.MemberID]*rate.Limiter{}}}
}

func (w *witness) book(leader ledger.MemberID, term uint64) *book {
	for _, b := range w.books {
		if b.leader == leader && b.term == term {
			return b
		}
	}
	return nil
}

// knows reports whether just this signature was checked before.
func (w *witness) knows(s signedSlot) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.book(s.Leader, s.Term)
	if b == nil {
		return false
	}
	own, ok := b.at(s.Index, s.Cluster)
	return ok && own == s
}

// note writes down checked slots of one leader and term, and returns the proof if one
// of them contradicts what it signed before.
func (w *witness) note(ss []signedSlot, now time.Time) *Proof {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.book(ss[0].Leader, ss[0].Term)
	if b == nil {
		b = &book{leader: ss[0].Leader, term: ss[0].Term, groups: map[uint64]*group{}}
		w.books = append(w.books, b)
		n := 0
		for i := len(w.books) - 1; i >= 0; i-- {
			if w.books[i].leader != b.leader {
				continue
			}
			if n++; n > maxBooks {
				w.books = slices.Delete(w.books, i, i+1)
			}
		}
	}
	b.last = now
	for _, s := range ss {
		if own, ok := b.at(s.Index, s.Cluster); !ok {
			b.add(s)
		} else if own.Entry != s.Entry {
			p := own.against(s)
			return &p
		}
	}
	return nil
}

// witnessed notes what the leader signed to this node.
func (c *Consensus) witnessed(ss []signedSlot) {
	if p := c.witness.note(ss, time.Now()); p != nil {
		c.convict(*p)
	}
}

// convict keeps a proof and shuns the member that it is about. It is checked already.
func (c *Consensus) convict(p Proof) {
	w := c.witness
	w.mu.Lock()
	_, known := w.proofs[p.Leader]
	if !known { // one of each member is enough, and there are no more than members
		w.proofs[p.Leader] = p
	}
	w.mu.Unlock()
	if known {
		return
	}
	c.log.Error("a leader signed two entries for one slot: it is a traitor, or two machines run with its key",
		"leader", p.Leader.String(), "term", p.Term, "index", p.Index, "entries", [2]string{p.Entries[0].String(), p.Entries[1].String()})
	if err := p.save(c.ProofFile(p.Leader)); err != nil {
		c.log.Error("proof not written to disk; the others keep it too", "error", err)
	}
	c.judge(time.Now())
}

// ProofFile is where this node keeps its proof about m, if it holds one.
func (c *Consensus) ProofFile(m ledger.MemberID) string {
	return filepath.Join(c.cfg.Dir, proofDir, m.String())
}

const proofDir = "evidence"

// save writes the proof for the time after a restart, and for people to show around.
func (p Proof) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", ledger.Marshal(p), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// loadProofs reads what save wrote. What does not convince is passed over: the others
// tell it again.
func (c *Consensus) loadProofs() {
	files, _ := filepath.Glob(filepath.Join(c.cfg.Dir, proofDir, "*"))
	for _, f := range files {
		var p Proof
		b, err := os.ReadFile(f)
		if err == nil {
			err = ledger.Unmarshal(b, &p)
		}
		if err != nil || !p.Convinces(c.cfg.Cluster) {
			c.log.Warn("no proof in file", "file", f, "error", err)
			continue
		}
		c.witness.proofs[p.Leader] = p
	}
}

// convicted are the members of e that proofs are about, at most as many as can be
// traitors: if there are more, shunning them all could leave nobody to lead.
func (w *witness) convicted(e ledger.Epoch) (ms []ledger.MemberID) {
	for _, p := range w.list(e) {
		ms = append(ms, p.Leader)
	}
	return ms[:min(len(ms), maxShunned(e))]
}

// list is every proof about a member of e, by member.
func (w *witness) list(e ledger.Epoch) (ps []Proof) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for m, p := range w.proofs {
		if e.Has(m) {
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, func(a, b Proof) int { return slices.Compare(a.Leader[:], b.Leader[:]) })
	return ps
}

// testify is the loop that tells the others what leaders signed to this node.
func (c *Consensus) testify() {
	tick := time.NewTicker(accountEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.failed:
			return
		case <-c.ctx.Done():
			return
		}
		e := c.now().Epoch
		if !e.Has(c.cfg.Self) {
			continue
		}
		if x := c.witness.account(c.witness.list(e), time.Now()); len(x.Digests) > 0 || x.Shown != nil || x.Proof != nil {
			c.cfg.Gossip.Broadcast(GossipAccount, ledger.Marshal(x))
		}
	}
}

// account is the next to send: the newest book always, and in turn each older one and
// each proof. An answer takes the place of the older book, for want of room.
func (w *witness) account(proofs []Proof, now time.Time) (x account) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.books = slices.DeleteFunc(w.books, func(b *book) bool { return now.Sub(b.last) > bookLife })
	w.turn++
	n := len(w.books)
	if n > 0 {
		x.Digests = append(x.Digests, w.books[n-1].digest())
	}
	if x.Shown, w.answer = w.answer, nil; x.Shown == nil && n > 1 {
		x.Digests = append(x.Digests, w.books[w.turn%(n-1)].digest())
	}
	if len(proofs) > 0 {
		x.Proof = &proofs[w.turn%len(proofs)]
	}
	return x
}

var errAccount = errors.New("bad account of a leader")

// HandleAccount takes what a member says of leaders.
func (c *Consensus) HandleAccount(from ledger.MemberID, body []byte) error {
	e := c.now().Epoch
	switch {
	case len(body) > maxAccount:
		return fmt.Errorf("%w: %d bytes, at most %d", errAccount, len(body), maxAccount)
	case !e.Has(from):
		return errNotMember
	case !c.witness.allow(from, time.Now()):
		return fmt.Errorf("%w: more than %d a second", errAccount, accountsPerSec)
	}
	var x account
	if err := ledger.Unmarshal(body, &x); err != nil {
		return fmt.Errorf("%w: %w", errAccount, err)
	}
	if len(x.Digests) > maxDigests || slices.ContainsFunc(x.Digests, func(d digest) bool { return !d.valid() }) ||
		x.Shown != nil && len(x.Shown.Slots) > slotsPerGroup {
		return fmt.Errorf("%w: more than an account holds", errAccount)
	}
	if p := x.Proof; p != nil && !c.witness.holds(p.Leader) {
		if !e.Has(p.Leader) || !p.Convinces(c.cfg.Cluster) {
			return fmt.Errorf("%w: proves nothing of %s", errAccount, p.Leader)
		}
		c.convict(*p)
	}
	if x.Shown != nil {
		if p := c.witness.compare(*x.Shown, c.cfg.Cluster); p != nil {
			c.convict(*p)
		}
	}
	c.witness.doubt(x.Digests, c.cfg.Cluster)
	return nil
}

func (w *witness) allow(from ledger.MemberID, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.turns.take(from, now)
}

func (w *witness) holds(m ledger.MemberID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.proofs[m]
	return ok
}

// compare looks for a slot that the leader signed otherwise to this node. A signature
// is checked only where it would prove something.
func (w *witness) compare(x shown, cluster ledger.Hash) *Proof {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.book(x.Leader, x.Term)
	if b == nil {
		return nil
	}
	for _, s := range x.Slots {
		own, ok := b.at(s.Index, cluster)
		theirs := signedSlot{Slot{cluster, x.Leader, x.Term, s.Index, s.Entry}, s.Signature}
		if ok && own.Entry != s.Entry && theirs.verify(theirs.sig) {
			p := own.against(theirs)
			return &p
		}
	}
	return nil
}

// doubt chooses what to show next: one of the groups in which a member holds something
// else, at random, so that nobody who lies about that can keep the others from it.
func (w *witness) doubt(ds []digest, cluster ledger.Hash) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range ds {
		b := w.book(d.Leader, d.Term)
		if b == nil {
			continue
		}
		groups := b.differs(d)
		if len(groups) == 0 || w.answer != nil && mathrand.N(2) == 0 {
			continue
		}
		n := groups[mathrand.N(len(groups))]
		x := &shown{Leader: b.leader, Term: b.term}
		for i := range uint64(slotsPerGroup) {
			if s, ok := b.at(n*slotsPerGroup+i, cluster); ok {
				x.Slots = append(x.Slots, shownSlot{s.Index, s.Entry, s.sig})
			}
		}
		w.answer = x
	}
}
