package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

// Setting is a parameter's value, or the value that a proposal gives it. Names
// and units: coffer votes --settings.
type Setting struct {
	Pool  string `json:"pool,omitempty" doc:"empty: of the whole cluster"`
	Name  string `json:"name"`
	Value string `json:"value" doc:"digits, true or false"`
}

// Proposal is what members vote on.
type Proposal struct {
	Kind    string    `json:"kind" enum:"set,stop,lift,socialise,resume,leave-hold,cancel,top-up,gas-float,btc-float,book,admit,replace,evict,refresh,abort,rollback"`
	Text    string    `json:"text" doc:"for the public: why; part of what is voted" maxLength:"280"`
	Changes []Setting `json:"changes,omitempty" doc:"of set" maxItems:"16"`
	Pool    string    `json:"pool,omitempty" doc:"of stop, lift, socialise; empty: all"`
	Flag    string    `json:"flag,omitempty" doc:"of stop, lift: paused, frozen, borrow-off or halt"`
	Halt    string    `json:"halt,omitempty" doc:"of lift of halt: the cause that it lifts"`

	Batch   uint64 `json:"batch,omitempty" doc:"of leave-hold, cancel"`
	Outflow uint64 `json:"outflow,omitempty" doc:"of leave-hold: one of the batch's payouts; 0: all"`
	Outcome string `json:"outcome,omitempty" doc:"of leave-hold: paid, refund, requeue or resume; of cancel: refund or requeue"`
	Body    uint64 `json:"body,omitempty" doc:"of leave-hold to paid by a planned transaction: which of the batch's"`
	TxID    string `json:"txid,omitempty" doc:"of leave-hold: what paid it, consumed its anchor, or killed what made the anchor"`
	Fee     string `json:"fee,omitempty" doc:"of leave-hold on Ethereum: wei that the chain took of our sender"`
	Height  uint64 `json:"height,omitempty" doc:"of leave-hold to paid on Bitcoin: the block of the planned transaction"`
	Amount  string `json:"amount,omitempty" doc:"of top-up, gas-float, btc-float, book: base units"`
	Coin    string `json:"coin,omitempty" doc:"of btc-float, book: txid:vout"`
	Address string `json:"address,omitempty" doc:"of gas-float: the vault's"`
	Asset   string `json:"asset,omitempty" doc:"of book on Ethereum, in place of a coin"`

	Seats *Seats `json:"seats,omitempty" doc:"of admit, replace, evict, refresh, abort, rollback"`
}

// Seats is what a proposal about members says. What is left out when it is
// brought, the node fills from what it shows.
type Seats struct {
	In     *Newcomer `json:"in,omitempty" doc:"of admit, replace: who takes a seat"`
	Out    string    `json:"out,omitempty" doc:"of evict, replace: the member that goes, by name or id"`
	Row    *Row      `json:"row,omitempty" doc:"the committee after it; of all but abort"`
	Urgent bool      `json:"urgent,omitempty" doc:"of replace: without the first quarantine"`
	Epoch  uint64    `json:"epoch,omitempty" doc:"of abort: the one that is being prepared; of rollback: the one to go back to"`
}

// Newcomer is a node that is to take a seat.
type Newcomer struct {
	ID       string `json:"id" doc:"as coffer node init prints it"`
	Name     string `json:"name"`
	Operator string `json:"operator" doc:"who runs it; one seat each"`
	Addr     string `json:"addr,omitempty" doc:"where peers reach it first, a multiaddr"`
}

// Row is a committee in numbers (spec: consensus §6.4).
type Row struct {
	N          *int `json:"n,omitempty" doc:"members"`
	M          *int `json:"m,omitempty" doc:"members that must sign"`
	F          *int `json:"f,omitempty" doc:"members that may be traitors"`
	FactQuorum *int `json:"factQuorum,omitempty" doc:"members that must say the same for a fact to count"`
}

// Ballot is a proposal on its way.
type Ballot struct {
	Hash         string     `json:"hash"`
	Proposal     Proposal   `json:"proposal"`
	Effects      []string   `json:"effects" doc:"what it changes, old → new"`
	By           string     `json:"by" doc:"the member that brought it"`
	Opened       time.Time  `json:"opened"`
	State        string     `json:"state" enum:"open,first passed,waiting,stepping"`
	Yes          []string   `json:"yes"`
	No           []string   `json:"no"`
	Needs        int        `json:"needs" doc:"members that must agree"`
	DelaySeconds uint64     `json:"delaySeconds" doc:"between the last vote needed and the effect"`
	SecondFrom   *time.Time `json:"secondFrom,omitempty" doc:"when members may agree a second time"`
	Effective    *time.Time `json:"effective,omitempty" doc:"when it, or its next step, takes effect"`
	Expires      *time.Time `json:"expires,omitempty"`
}

// Decided is a proposal that is over.
type Decided struct {
	Hash     string    `json:"hash"`
	Proposal Proposal  `json:"proposal"`
	By       string    `json:"by"`
	Time     time.Time `json:"time"`
	State    string    `json:"state" enum:"done,refused,expired,withdrawn"`
	Code     string    `json:"code,omitempty" doc:"of refused: why"`
}

// Paused is who pauses all outflows.
type Paused struct {
	By    string    `json:"by"`
	Until time.Time `json:"until"`
}

// Votes are what members decide, and the parameters in force.
type Votes struct {
	Meta
	ParamsVersion uint64    `json:"paramsVersion"`
	Paused        *Paused   `json:"paused,omitempty"`
	Proposals     []Ballot  `json:"proposals" doc:"oldest first"`
	Decided       []Decided `json:"decided" doc:"the last 32"`
	Settings      []Setting `json:"settings" doc:"what proposals may change, as in force"`
}

// Votes reads proposals and the parameters in force.
func (c *Client) Votes(ctx context.Context) (*Votes, error) { return get[Votes](ctx, c, "/v1/votes") }

// Vote is the body of POST /vote on a node's control socket.
type Vote struct {
	Hash     string    `json:"hash,omitempty" doc:"of an open proposal"`
	Yes      bool      `json:"yes"`
	Proposal *Proposal `json:"proposal,omitempty" doc:"a new one, instead of a hash"`
}

// Pause is the body of POST /pause.
type Pause struct {
	For string `json:"for" doc:"1s to 1h" example:"30m"`
}

// Said answers what a node said for its operator.
type Said struct {
	Meta
	Hash     string `json:"hash,omitempty" doc:"of the proposal"`
	LogIndex uint64 `json:"logIndex"`
}

// ControlSocket is the name of a node's control socket in its directory.
const ControlSocket = "control.sock"

// Control has an operator's own node vote and pause.
type Control struct{ *Client }

// NewControl talks to the node that runs in dir.
func NewControl(dir string) *Control {
	sock := filepath.Join(dir, ControlSocket)
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", sock)
		if err != nil {
			return nil, fmt.Errorf("no node runs in %s: %w", dir, err)
		}
		return c, nil
	}}
	return &Control{&Client{base: "http://unix", http: &http.Client{Timeout: time.Minute, Transport: t}}}
}

// Propose brings a proposal and votes for it.
func (c *Control) Propose(ctx context.Context, p Proposal) (*Said, error) {
	return c.say(ctx, "/vote", Vote{Yes: true, Proposal: &p})
}

// Vote says yes or no to an open proposal, by its hash or the first digits of it.
func (c *Control) Vote(ctx context.Context, hash string, yes bool) (*Said, error) {
	if len(hash) < 64 {
		v, err := c.Votes(ctx)
		if err != nil {
			return nil, err
		}
		found := ""
		for _, b := range v.Proposals {
			if strings.HasPrefix(b.Hash, hash) {
				if found != "" {
					return nil, fmt.Errorf("more than one open proposal begins with %q", hash)
				}
				found = b.Hash
			}
		}
		if found == "" {
			return nil, fmt.Errorf("no open proposal begins with %q", hash)
		}
		hash = found
	}
	return c.say(ctx, "/vote", Vote{Hash: hash, Yes: yes})
}

// Pause pauses all outflows for a while, an hour at most.
func (c *Control) Pause(ctx context.Context, d time.Duration) (*Said, error) {
	return c.say(ctx, "/pause", Pause{For: d.String()})
}

// Resume ends this member's own pause.
func (c *Control) Resume(ctx context.Context) (*Said, error) {
	return c.say(ctx, "/resume", struct{}{})
}

// Weigh names an asset whose custody is to be weighed at once.
type Weigh struct {
	Asset string `json:"asset" maxLength:"64" example:"usdt.eth"`
}

// Weigh has all members asked for a balance of an asset now.
func (c *Control) Weigh(ctx context.Context, asset string) (*Said, error) {
	return c.say(ctx, "/weigh", Weigh{Asset: asset})
}

// KeyShareSound is what an audit says of a KeyShare with which nothing is wrong.
const KeyShareSound = "sound"

// KeyShares answers what a node's keystore holds. No secret is in it.
type KeyShares struct {
	Meta
	Shares  []KeyShare `json:"shares"`
	Missing []string   `json:"missing" doc:"generations in force that this member should hold, and the keystore has not: it cannot sign with them"`
}

// KeyShare is one KeyShare without its secret.
type KeyShare struct {
	Key        string   `json:"key"`
	Epoch      uint64   `json:"epoch"`
	Try        uint64   `json:"try" doc:"of the keygen or resharing that made it"`
	State      string   `json:"state" enum:"staged,active,retired,wiped"`
	Curve      string   `json:"curve,omitempty"`
	Needed     int      `json:"needed,omitempty" doc:"m: holders that sign together"`
	Holders    []string `json:"holders"`
	PublicKey  string   `json:"publicKey,omitempty" doc:"compressed, hex"`
	Transcript string   `json:"transcript,omitempty" doc:"hash of the session that made it, the same at every holder"`
	Kept       string   `json:"kept,omitempty" doc:"why it is not wiped, where it is not in force"`
	Audit      string   `json:"audit,omitempty" doc:"sound, or what is wrong with it; absent: not looked at"`
}

// KeyShares lists the KeyShares of the node. With audit each is checked against
// its public commitments, up to a second each.
func (c *Control) KeyShares(ctx context.Context, audit bool) (*KeyShares, error) {
	return get[KeyShares](ctx, c.Client, fmt.Sprintf("/keys?audit=%t", audit))
}

// Drilled is what a drill came to: coffer node drill --json prints it.
type Drilled struct {
	Name       string            `json:"name" maxLength:"64"`
	Signatures map[string]string `json:"signatures" doc:"R‖S in hex, by key id"`
}

// Drilled has the node tell the ledger of a drill, with its signatures.
func (c *Control) Drilled(ctx context.Context, d Drilled) (*Said, error) {
	return c.say(ctx, "/drilled", d)
}

// say has the node speak; while nobody leads, until the context ends, it waits for an election.
func (c *Control) say(ctx context.Context, path string, in any) (*Said, error) {
	for {
		var out Said
		_, err := c.post(ctx, path, in, &out)
		if err == nil {
			c.SawWrite(out.LogIndex)
			return &out, nil
		}
		if !IsCode(err, "NO_LEADER") { // after TIMEOUT it may be said already, and a drill is told once
			return nil, err
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return nil, err
		}
	}
}
