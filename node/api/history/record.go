package history

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/coffer-network/coffer/ledger"
	"github.com/fxamacker/cbor/v2"
)

// Record is one command that had an effect, as every replica saw it.
type Record struct {
	Height  uint64           `cbor:"1,keyasint"`           // LogIndex
	Millis  uint64           `cbor:"2,keyasint"`           // ledger time
	Code    ledger.Code      `cbor:"3,keyasint"`           // verdict
	Request ledger.Hash      `cbor:"4,keyasint"`           // of an Intent's text; zero: an attestation
	Account ledger.AccountID `cbor:"5,keyasint,omitempty"` // whose request it is
	Action  string           `cbor:"6,keyasint,omitempty"` // of the request
	Pool    string           `cbor:"7,keyasint,omitempty"`
	Amount  string           `cbor:"8,keyasint,omitempty"` // asked for; base units
	Nonce   uint64           `cbor:"9,keyasint,omitempty"`
	Final   bool             `cbor:"10,keyasint,omitempty"` // the nonce was used up: this is the request's answer
	Entries []Entry          `cbor:"11,keyasint,omitempty"`
}

// Entry is one effect with what a reader wants beside it, taken from the state
// that the command left.
type Entry struct {
	Event    ledger.Event `cbor:"1,keyasint"`
	Low      string       `cbor:"2,keyasint,omitempty"` // price of the asset, USD · 10⁸ per whole token
	High     string       `cbor:"3,keyasint,omitempty"`
	Fee      string       `cbor:"4,keyasint,omitempty"` // of the outflow, once planned; base units
	Net      string       `cbor:"5,keyasint,omitempty"`
	Gross    string       `cbor:"6,keyasint,omitempty"`
	Kind     string       `cbor:"7,keyasint,omitempty"` // of the outflow; purpose of the inflow
	TxID     string       `cbor:"8,keyasint,omitempty"` // of the outflow's final spend
	Inflow   string       `cbor:"9,keyasint,omitempty"`
	Outflows []uint64     `cbor:"10,keyasint,omitempty"` // of the event's batch
}

// Of is what to remember of one command: c as logged (nil: it does not decode),
// s the state it left. It is a pure function, so that all nodes remember alike.
func Of(s *ledger.State, c *ledger.Command, r ledger.Result) Record {
	rec := Record{Height: r.Header.Height, Millis: s.Millis, Code: r.Code}
	if c != nil && c.Intent != nil {
		rec.Request = ledger.RequestID(c.Intent.Text)
		if cmd, _ := s.Grammar().Parse(c.Intent.Text); cmd != nil {
			rec.Account, rec.Action, rec.Pool = hex.EncodeToString(cmd.Account[:]), cmd.Action, cmd.Pool
			rec.Amount, rec.Nonce = cmd.Amount.Units, cmd.Nonce
			if cmd.Amount.Max {
				rec.Amount = "max"
			}
		}
		a, _ := s.Accounts.Get(rec.Account)
		for _, res := range a.Results {
			rec.Final = rec.Final || res.Text == rec.Request && res.Height == rec.Height
		}
	}
	for _, e := range r.Events {
		rec.Entries = append(rec.Entries, entryOf(s, e))
	}
	return rec
}

// entryOf adds to an event what the state says about it.
func entryOf(s *ledger.State, e ledger.Event) Entry {
	out := Entry{Event: e}
	if p, ok := s.Prices.Get(e.Asset); ok && e.Account != "" {
		out.Low, out.High = p.Low.String(), p.High.String()
	}
	if o, ok := s.Outflows.Get(e.Outflow); ok && e.Outflow != 0 {
		out.Kind, out.Gross, out.TxID = o.Kind.String(), o.Gross.String(), o.TxID
		if o.Batch != 0 { // fee and net are fixed when it is planned
			out.Fee, out.Net = o.Fee.String(), o.Net.String()
		}
	}
	if b, ok := s.Batches.Get(e.Batch); ok && e.Batch != 0 && e.Outflow == 0 {
		out.Outflows = b.Outflows
	}
	switch e.Name {
	case "inflow-waiting", "credited", "inflow-held":
		out.Inflow, _, _ = strings.Cut(e.Note, " ")
		if in, ok := s.Inflows.Get(out.Inflow); ok {
			out.Kind = map[ledger.Purpose]string{ledger.PurposeSupply: "supply", ledger.PurposeRepay: "repay"}[in.Purpose]
		}
	}
	return out
}

// empty: nothing anybody could ask for.
func (r Record) empty() bool { return len(r.Entries) == 0 && r.Request == ledger.Hash{} }

// Touches reports whether a record concerns an account.
func (r Record) Touches(account ledger.AccountID) bool {
	if r.Account == account {
		return true
	}
	for _, e := range r.Entries {
		if e.Event.Account == account {
			return true
		}
	}
	return false
}

// Concerns reports whether an entry concerns an outflow.
func (e Entry) Concerns(outflow uint64) bool {
	if e.Event.Outflow == outflow {
		return true
	}
	for _, o := range e.Outflows {
		if o == outflow {
			return true
		}
	}
	return false
}

// Key is what records are found by.
type Key string

// Keys of each kind.
func ByAccount(id ledger.AccountID) Key { return Key("a/" + id) }
func ByRequest(id ledger.Hash) Key      { return Key("r/" + string(id[:])) }
func ByOutflow(id uint64) Key           { return Key("o/" + strconv.FormatUint(id, 10)) }
func ByInflow(id string) Key            { return Key("i/" + id) }
func ByTx(id string) Key                { return Key("x/" + id) }
func ByName(event string) Key           { return Key("n/" + event) }

// rare are the events that are also found by name: too few to weigh, and asked
// for as lists.
var rare = map[string]bool{"liquidated": true}

// keys are those of a record, each once.
func (r Record) keys() []Key {
	seen := map[Key]bool{}
	var out []Key
	add := func(k Key) {
		if !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	if r.Account != "" {
		add(ByAccount(r.Account))
	}
	if r.Request != (ledger.Hash{}) {
		add(ByRequest(r.Request))
	}
	for _, e := range r.Entries {
		if e.Event.Account != "" {
			add(ByAccount(e.Event.Account))
		}
		if e.Event.Outflow != 0 {
			add(ByOutflow(e.Event.Outflow))
		}
		for _, o := range e.Outflows {
			add(ByOutflow(o))
		}
		if e.Inflow != "" {
			add(ByInflow(e.Inflow))
			txid, _, _ := strings.Cut(e.Inflow, ":")
			add(ByTx(txid))
		}
		if e.TxID != "" {
			add(ByTx(e.TxID))
		}
		if rare[e.Event.Name] {
			add(ByName(e.Event.Name))
		}
	}
	return out
}

func (r Record) has(k Key) bool {
	for _, x := range r.keys() {
		if x == k {
			return true
		}
	}
	return false
}

var encMode = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func (r Record) encode() []byte {
	b, err := encMode.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("encode history record: %v", err)) // plain structs: cannot be
	}
	return b
}
