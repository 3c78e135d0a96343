package consensus

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coffer-network/coffer/ledger"
)

// Slot is one place in the log as its leader fills it: what the leader of a term
// signs of every entry that it sends (spec: consensus §6.5).
//
// No honest leader ever signs two slots that differ in Entry alone, so two of them
// are a proof against whoever signed:
//   - It leads a term at most once. Raft asks for votes only after the raised term is
//     on disk, a node that starts is a follower in the term it has stored, and to lead
//     again it raises that. A node whose raft directory fell back behind its keystore
//     does not start (guard), one whose keystore was restored takes part in no election
//     (Config.MayVote). What is left is a whole machine put back to an older image, or
//     run twice: that is not an honest member.
//   - While it leads, its log only grows. Raft takes entries back in appendEntries
//     alone, after it has become a follower, and gives no index twice. A snapshot that
//     it is sent in its own term empties its log and lowers no index.
//   - What it signs it read before it was still leader of that term (signed). A
//     goroutine of raft's that outlives the leadership may read what another leader
//     has put there since; that is not sent.
//
// Term is that of the request, not of the entry: entries of earlier leaders that it
// passes on are in its log too, and do not change while it leads. Why not hold each
// leader to the entries of its own term alone: a traitor would send everything as of
// an earlier term, a different one to each side, and never be held to any of it.
//
// Why one signature for each entry and not for each request: the borders of requests
// differ between followers and when something is sent again; the entries do not. One
// is signed once and not for every follower, and two signatures are a proof without
// the other 255 entries of a request.
type Slot struct {
	Cluster ledger.Hash     `cbor:"1,keyasint"`
	Leader  ledger.MemberID `cbor:"2,keyasint"`
	Term    uint64          `cbor:"3,keyasint"` // in which the member leads
	Index   uint64          `cbor:"4,keyasint"` // of raft's log
	Entry   ledger.Hash     `cbor:"5,keyasint"` // all of it that a follower stores and reads
}

const (
	slotDomain  = "coffer/slot/1"
	entryDomain = "coffer/entry/1"
)

// SignSlot signs s with a node's identity key.
func SignSlot(key ed25519.PrivateKey, s Slot) ledger.MemberSig {
	return ledger.MemberSig{Member: ledger.MemberID(key.Public().(ed25519.PublicKey)), Sig: ledger.Sign(key, slotDomain, ledger.Marshal(s))}
}

func (s Slot) verify(sig [ed25519.SignatureSize]byte) bool {
	return s.Leader.Verify(slotDomain, ledger.Marshal(s), sig)
}

// SlotOf is the slot that the leader of a term fills with e.
func SlotOf(cluster ledger.Hash, leader ledger.MemberID, term uint64, e *raft.Log) Slot {
	return Slot{Cluster: cluster, Leader: leader, Term: term, Index: e.Index, Entry: entryHash(e)}
}

// entryHash covers an entry but for its Extensions, which carry the signature and are
// not stored, and AppendedAt, which nobody reads.
func entryHash(e *raft.Log) ledger.Hash {
	h := sha256.New()
	b := append(make([]byte, 0, len(entryDomain)+17), entryDomain...)
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	h.Write(append(b, byte(e.Type)))
	h.Write(e.Data)
	return ledger.Hash(h.Sum(nil))
}

var (
	errUnsigned = errors.New("entries without the leader's signature for their slots")
	errDeposed  = errors.New("no longer the leader of that term")
)

// signer keeps the signatures of what was sent last: each entry goes to every follower.
type signer struct {
	mu   sync.Mutex
	sent [2 * maxAppendEntries]struct {
		term, index uint64
		sig         []byte
	}
}

// signed is args with this leader's signature in each entry's Extensions. Entries
// themselves stay as they are: raft's log cache shares them.
func (f *fence) signed(args *raft.AppendEntriesRequest) (*raft.AppendEntriesRequest, error) {
	if len(args.Entries) == 0 {
		return args, nil // a heartbeat, or news of a commit
	}
	<-f.opened // f.c.raft
	// Asked after the entries were read. Terms only grow, so that it leads now and is in
	// this term now says that it led this term all the time.
	if f.c.raft.State() != raft.Leader || f.c.raft.CurrentTerm() != args.Term {
		return nil, errDeposed
	}
	out := *args
	out.Entries = make([]*raft.Log, len(args.Entries))
	for i, e := range args.Entries {
		s := *e
		s.Extensions = f.sign(args.Term, e)
		out.Entries[i] = &s
	}
	return &out, nil
}

func (f *fence) sign(term uint64, e *raft.Log) []byte {
	f.signer.mu.Lock()
	defer f.signer.mu.Unlock()
	at := &f.signer.sent[e.Index%uint64(len(f.signer.sent))]
	if at.term != term || at.index != e.Index {
		sig := f.c.cfg.SignSlot(SlotOf(f.c.cfg.Cluster, f.c.cfg.Self, term, e)).Sig
		at.term, at.index, at.sig = term, e.Index, sig[:]
	}
	return at.sig
}

// pipeline is raft's quicker way to send entries; they are signed like the others.
type pipeline struct {
	raft.AppendPipeline
	f *fence
}

// AppendEntriesPipeline is the transport's, signing.
func (f *fence) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := f.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err // raft compares it
	}
	return pipeline{p, f}, nil
}

// AppendEntries signs and sends.
func (p pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	args, err := p.f.signed(args)
	if err != nil {
		return nil, err
	}
	return p.AppendPipeline.AppendEntries(args, resp)
}

// vouched checks that the leader has signed for each entry of a request and returns
// the request as raft may see it, without the signatures. It notes what was signed,
// if it follows on this node's log.
//
// A leader that does not sign has its entries refused by everybody and orders nothing:
// time stands under it, and it is complained of like any other that keeps entries back.
func (f *fence) vouched(cmd *raft.AppendEntriesRequest) (*raft.AppendEntriesRequest, error) {
	if len(cmd.Entries) == 0 {
		return cmd, nil
	}
	leader, err := memberOf(raft.ServerID(cmd.ID))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsigned, err)
	}
	if n := len(cmd.Entries); n > maxAppendEntries { // each costs a signature
		return nil, fmt.Errorf("%w: %d, at most %d", errMalformed, n, maxAppendEntries)
	}
	out := *cmd
	out.Entries = make([]*raft.Log, len(cmd.Entries))
	heard := make([]signedSlot, len(cmd.Entries))
	for i, e := range cmd.Entries {
		if e == nil || e.Index != cmd.PrevLogEntry+1+uint64(i) {
			return nil, errMalformed
		}
		s := signedSlot{Slot: SlotOf(f.c.cfg.Cluster, leader, cmd.Term, e)}
		if copy(s.sig[:], e.Extensions) != len(s.sig) || len(e.Extensions) != len(s.sig) || !f.c.witness.knows(s) && !s.verify(s.sig) {
			return nil, fmt.Errorf("entry %d: %w", e.Index, errUnsigned)
		}
		bare := *e
		bare.Extensions = nil
		heard[i], out.Entries[i] = s, &bare
	}
	if _, misses := f.missesPrevious(cmd); !misses {
		f.c.witnessed(heard)
	}
	return &out, nil
}
