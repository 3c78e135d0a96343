package client

import (
	"net/http"
	"strconv"
	"time"
)

// Amounts are decimal strings in base units, ratios are in bps, times are the
// ledger's unless they stand under "local".

// Meta is in every answer.
type Meta struct {
	AsOf uint64 `json:"asOf" doc:"LogIndex that this answer shows"`
}

// SetAsOf stamps an answer.
func (m *Meta) SetAsOf(height uint64) { m.AsOf = height }

// Submission is the body of POST /v1/requests.
type Submission struct {
	Text string `json:"text" doc:"the request, exactly as the wallet showed it"`
	Signed
	CoSignature *Signed `json:"coSignature,omitempty" doc:"the new wallet's signature over the same text, by a scheme of its own (Link wallet)"`
}

// Signed is one wallet's signature.
type Signed struct {
	Scheme            string `json:"scheme" doc:"how the wallet signed; never guessed" example:"bip322"`
	Signature         string `json:"signature"`
	PublicKey         string `json:"publicKey,omitempty" doc:"DER public key in hex (ic- schemes)"`
	ApplicationDomain string `json:"applicationDomain,omitempty" doc:"base58 of 32 bytes (solana-offchain-v0)"`
	Format            *uint8 `json:"format,omitempty" doc:"envelope format (solana-offchain); absent: by the text"`
}

// Request is what is known of one request.
type Request struct {
	Meta
	ID       string `json:"id" doc:"SHA-256 of the text"`
	Account  string `json:"account,omitempty"`
	Nonce    uint64 `json:"nonce"`
	Phase    string `json:"phase" enum:"pending,applied" doc:"pending: this replica has not applied it yet"`
	Code     string `json:"code,omitempty" doc:"OK or the refusal"`
	LogIndex uint64 `json:"logIndex,omitempty" doc:"that applied it"`
	Outflow  uint64 `json:"outflow,omitempty" doc:"that it created"`
	Status   string `json:"status,omitempty" doc:"status word of the outflow"`
}

// Problem is a refusal or failure (RFC 9457).
type Problem struct {
	Meta
	Type      string `json:"type,omitempty"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty" doc:"what happened and what to do"`
	Code      string `json:"code" doc:"stable name of the refusal"`
	Retryable bool   `json:"retryable" doc:"the same text may be sent again"`
	RequestID string `json:"requestId" doc:"SHA-256 of the request text, or of this call"`
	Limit     string `json:"limit,omitempty" doc:"the bound that was hit"`
	Found     string `json:"found,omitempty" doc:"what was found against it"`
	Pool      string `json:"pool,omitempty"`
	LogIndex  uint64 `json:"logIndex,omitempty" doc:"that applied the refused request; absent: nothing was logged"`
	After     int    `json:"retryAfter,omitempty" doc:"seconds to wait, as in Retry-After"`
}

func (p *Problem) Error() string {
	s := p.Code
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if p.Limit != "" || p.Found != "" {
		s += " (limit " + orNone(p.Limit) + ", found " + orNone(p.Found) + ")"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are the headers that go with it.
func (p *Problem) GetHeaders() http.Header {
	if p.After == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(p.After)}}
}

// ContentType names the media type of problem documents.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// RenderRequest asks for the text of a command. A convenience: never sign a
// node's text unseen.
type RenderRequest struct {
	Action         string    `json:"action" example:"Borrow"`
	Amount         string    `json:"amount,omitempty" doc:"base units, or max"`
	Pool           string    `json:"pool,omitempty"`
	To             string    `json:"to,omitempty" doc:"CAIP-10"`
	MaxFee         string    `json:"maxFee,omitempty" doc:"base units; of a Liquidate in the collateral's asset"`
	Collateral     string    `json:"collateral,omitempty" doc:"base units (Open loan)"`
	CollateralPool string    `json:"collateralPool,omitempty" doc:"(Open loan, Liquidate)"`
	RefundTo       string    `json:"refundTo,omitempty" doc:"CAIP-10 (Open loan)"`
	Borrower       string    `json:"borrower,omitempty" doc:"account id (Liquidate)"`
	AutoWithdrawTo string    `json:"autoWithdrawTo,omitempty" doc:"CAIP-10 (Liquidate); absent: none"`
	Outflow        uint64    `json:"outflow,omitempty" doc:"number (Cancel outflow)"`
	NewWallet      string    `json:"newWallet,omitempty" doc:"CAIP-10 (Link wallet)"`
	Wallet         string    `json:"wallet,omitempty" doc:"CAIP-10 (Unlink wallet)"`
	On             bool      `json:"on,omitempty" doc:"Require payout list"`
	Signer         string    `json:"signer" doc:"CAIP-10"`
	Account        string    `json:"account,omitempty" doc:"default: the one this signer opens; Open loan: always the one of signer and nonce"`
	Nonce          *uint64   `json:"nonce,omitempty" doc:"default: the account's next; Open loan: the signer's first that has no account"`
	Expires        time.Time `json:"expires,omitzero" doc:"default: 5 minutes of ledger time ahead"`
	Scheme         string    `json:"scheme,omitempty" doc:"how the signer will sign; with eip712 the answer has typedData" example:"eip712"`
}

// Text is a rendered request.
type Text struct {
	Meta
	Text      string `json:"text"`
	ID        string `json:"id"`
	TypedData string `json:"typedData,omitempty" doc:"the same command for eth_signTypedData_v4, as JSON text"`
}

// PreviewRequest asks what a text would do now.
type PreviewRequest struct {
	Text string `json:"text"`
}

// Preview is what a text would do now, signature, nonce and expiry aside.
type Preview struct {
	Meta
	Code   string  `json:"code"`
	Limit  string  `json:"limit,omitempty"`
	Found  string  `json:"found,omitempty"`
	Gross  string  `json:"gross,omitempty" doc:"what the account would be debited"`
	Fee    string  `json:"fee,omitempty" doc:"fee quote now, in the asset"`
	Net    string  `json:"net,omitempty" doc:"gross less that fee"`
	Before *Health `json:"before,omitempty"`
	After  *Health `json:"after,omitempty"`

	Pool       string       `json:"pool,omitempty" doc:"that the action is about"`
	PoolBefore *PoolFigures `json:"poolBefore,omitempty"`
	PoolAfter  *PoolFigures `json:"poolAfter,omitempty" doc:"with the APYs that the action would leave"`
}

// Health sums up an account. Values are USD with 8 decimals as integers.
type Health struct {
	HealthFactor      *string    `json:"healthFactor" doc:"WAD; null without debt"`
	HealthFactorShown *string    `json:"healthFactorShown" doc:"two decimals, half up; below 1 rounded down" example:"1.14"`
	LTV               *uint64    `json:"ltvBps" doc:"debt to collateral value; null where there is debt and no collateral, or no price"`
	MaxLTV            uint64     `json:"maxLtvBps" doc:"limit for borrowing, weighted by collateral"`
	LiquidationLTV    uint64     `json:"liquidationLtvBps" doc:"where liquidation begins, weighted likewise"`
	Collateral        string     `json:"collateralValue"`
	Debt              string     `json:"debtValue"`
	Borrowable        string     `json:"borrowableValue"`
	Warning           bool       `json:"warning" doc:"LTV at 80 % of the limit or above"`
	Unknown           string     `json:"unknown,omitempty" doc:"code that kept health from being computed, such as PRICE_STALE"`
	Positions         []Position `json:"positions" doc:"one for each pool"`
}

// Position is an account's claims in one pool.
type Position struct {
	Pool             string  `json:"pool"`
	Symbol           string  `json:"symbol"`
	Decimals         uint8   `json:"decimals"`
	Supplied         string  `json:"supplied" doc:"balance with interest"`
	Collateral       string  `json:"collateral" doc:"the part that counts: final deposits"`
	Owed             string  `json:"owed" doc:"with interest"`
	SuppliedValue    string  `json:"suppliedValue"`
	OwedValue        string  `json:"owedValue"`
	LiquidationPrice string  `json:"liquidationPrice,omitempty" doc:"USD · 10⁸ at which liquidation begins, the others unmoved"`
	MaxBorrow        string  `json:"maxBorrow" doc:"most that Borrow would accept now; the fee comes out of it"`
	MaxWithdraw      string  `json:"maxWithdraw" doc:"most that Withdraw would accept now"`
	FullRepay        string  `json:"fullRepay,omitempty" doc:"send this to owe nothing if it is credited within the hour: the excess becomes supply"`
	SupplyAPY        string  `json:"supplyApy" doc:"RAY"`
	BorrowAPY        string  `json:"borrowApy" doc:"RAY"`
	Suspense         *Claims `json:"suspense,omitempty"`
}

// Claims is what an account may claim of one asset.
type Claims struct {
	Amount string `json:"amount"`
	Reason string `json:"reason" doc:"why it could not be credited"`
}

// Address is one of ours with what a client needs to derive it itself.
type Address struct {
	Chain   string `json:"chain" doc:"word of the derivation path" example:"btc"`
	CAIP2   string `json:"caip2"`
	Purpose string `json:"purpose" enum:"supply,repay,vault"`
	Role    string `json:"role" doc:"role of the derivation path" example:"minter"`
	Address string `json:"address"`
	Key     string `json:"key" doc:"id of the master key"`
	Path    string `json:"path" doc:"CBOR in hex"`
}

// Account is one client.
type Account struct {
	Meta
	ID          string      `json:"id"`
	Controllers []string    `json:"controllers" doc:"CAIP-10"`
	NextNonce   uint64      `json:"nextNonce"`
	Opened      time.Time   `json:"opened"`
	LastActive  time.Time   `json:"lastActive"`
	Outflows    uint64      `json:"openOutflows"`
	PayoutList  *PayoutList `json:"payoutList,omitempty" doc:"absent: coins may go anywhere, and nothing is listed"`
	Loan        *Loan       `json:"loan,omitempty" doc:"terms of a simple loan, and how far it came"`
	Health      Health      `json:"health"`
	Addresses   []Address   `json:"addresses,omitempty" doc:"absent until the first epoch with keys is in force"`
	Results     []Result    `json:"results" doc:"of its last requests"`
}

// PayoutList says where an account's coins may go, with what is pending.
type PayoutList struct {
	Required  bool       `json:"required" doc:"only listed addresses are paid"`
	Ends      *time.Time `json:"ends,omitempty" doc:"when that will no longer be required"`
	Addresses []Payee    `json:"addresses"`
}

// Payee is a listed address.
type Payee struct {
	To      string    `json:"to" doc:"CAIP-10"`
	From    time.Time `json:"from" doc:"from when it may be paid"`
	Pending bool      `json:"pending" doc:"that time is yet to come"`
}

// Loan is a simple loan: terms that one request fixed. Amounts are base units.
type Loan struct {
	Phase          string    `json:"phase" enum:"WAITING,GRANTED,OVER,RETURNED"`
	Status         string    `json:"status" doc:"status word"`
	Collateral     string    `json:"collateral" doc:"the least to be supplied"`
	CollateralPool string    `json:"collateralPool"`
	Missing        string    `json:"missing,omitempty" doc:"collateral still to be sent"`
	Amount         string    `json:"amount"`
	Pool           string    `json:"pool"`
	To             string    `json:"to"`
	MaxFee         string    `json:"maxFee"`
	RefundTo       string    `json:"refundTo"`
	RefundMaxFee   string    `json:"refundMaxFee" doc:"most that giving back may cost, in the collateral's asset"`
	SignedLTV      uint64    `json:"signedLtvBps"`
	Until          time.Time `json:"until" doc:"end of the deposit window"`
	Outflow        uint64    `json:"outflow,omitempty" doc:"that pays the loan"`
	Waits          string    `json:"waits,omitempty" doc:"code that kept it from being granted or given back when last tried"`
}

// Result is the remembered answer to a request.
type Result struct {
	Nonce    uint64 `json:"nonce"`
	Request  string `json:"request"`
	Code     string `json:"code"`
	LogIndex uint64 `json:"logIndex"`
	Outflow  uint64 `json:"outflow,omitempty"`
}

// Inflow is a deposit that a quorum attested.
type Inflow struct {
	ID            string    `json:"id"`
	Chain         string    `json:"chain"`
	Asset         string    `json:"asset"`
	Purpose       string    `json:"purpose"`
	Address       string    `json:"address"`
	Amount        string    `json:"amount"`
	Height        uint64    `json:"height"`
	State         string    `json:"state"`
	Status        string    `json:"status" doc:"status word"`
	Confirmations uint64    `json:"confirmations"`
	Required      uint64    `json:"requiredConfirmations"`
	Reason        string    `json:"reason,omitempty" doc:"why it is in suspense"`
	Shortfall     *Short    `json:"shortfall,omitempty" doc:"where it is too small to count"`
	Sweep         uint64    `json:"sweep,omitempty" doc:"outflow that carries it to the hot address"`
	Counted       time.Time `json:"counted"`
}

// History is a page of what happened to an account, newest first.
type History struct {
	Meta
	Since uint64       `json:"since" doc:"from this LogIndex on nothing is missing"`
	Rows  []HistoryRow `json:"rows"`
	Next  string       `json:"next,omitempty" doc:"cursor of the next page"`
}

// HistoryRow is one thing that happened.
type HistoryRow struct {
	LogIndex  uint64    `json:"logIndex"`
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind" doc:"opened, supply, repay, suspense, deposit-seen, borrow, withdraw, claim, request, or the name of another effect"`
	Pool      string    `json:"pool,omitempty"`
	Symbol    string    `json:"symbol,omitempty"`
	Decimals  uint8     `json:"decimals,omitempty"`
	Amount    string    `json:"amount,omitempty"`
	Price     string    `json:"price,omitempty" doc:"lower price at this LogIndex, USD · 10⁸ per whole token"`
	PriceHigh string    `json:"priceHigh,omitempty"`
	Fee       string    `json:"fee,omitempty" doc:"of the payout, once planned"`
	Net       string    `json:"net,omitempty"`
	State     string    `json:"state,omitempty" doc:"that the payout came to"`
	Outflow   uint64    `json:"outflow,omitempty"`
	Inflow    string    `json:"inflow,omitempty"`
	TxID      string    `json:"txid,omitempty"`
	Request   string    `json:"request,omitempty"`
	Code      string    `json:"code,omitempty" doc:"what the request came to"`
	Limit     string    `json:"limit,omitempty" doc:"bound that refused it"`
	Found     string    `json:"found,omitempty" doc:"what was found against it"`
	Note      string    `json:"note,omitempty"`
}

// Finds is what a search came to.
type Finds struct {
	Meta
	Finds []Find `json:"finds"`
}

// Find is one thing that a query stands for.
type Find struct {
	Kind    string `json:"kind" enum:"account,address,wallet,inflow,outflow,request,member"`
	ID      string `json:"id"`
	Account string `json:"account,omitempty" doc:"whose it is; absent: the cluster's own"`
	Chain   string `json:"chain,omitempty"`
	Purpose string `json:"purpose,omitempty"`
}

// Sighting is what this node alone saw.
type Sighting struct {
	Chain         string `json:"chain"`
	Address       string `json:"address"`
	Asset         string `json:"asset,omitempty"`
	Token         string `json:"token,omitempty"`
	TxID          string `json:"txid"`
	Amount        string `json:"amount"`
	Height        uint64 `json:"height,omitempty"`
	Status        string `json:"status"`
	Confirmations uint64 `json:"confirmations"`
	Required      uint64 `json:"requiredConfirmations"`
	Ignored       string `json:"ignored,omitempty" doc:"why it will never count"`
}

// Inflows is a page of them, newest first.
type Inflows struct {
	Meta
	Inflows []Inflow   `json:"inflows"`
	Next    string     `json:"next,omitempty" doc:"cursor of the next page"`
	Local   []Sighting `json:"local,omitempty"`
}

// Outflow is one payment owed.
type Outflow struct {
	ID            uint64     `json:"id"`
	Kind          string     `json:"kind"`
	Account       string     `json:"account,omitempty"`
	Asset         string     `json:"asset"`
	Symbol        string     `json:"symbol"`
	Decimals      uint8      `json:"decimals"`
	State         string     `json:"state" doc:"of the ledger's state machine"`
	Status        string     `json:"status" doc:"status word"`
	Gross         string     `json:"gross" doc:"what the account was debited"`
	MaxFee        string     `json:"maxFee"`
	Fee           string     `json:"fee,omitempty" doc:"fixed when planned"`
	Net           string     `json:"net,omitempty" doc:"gross less fee: what the chain sees"`
	To            string     `json:"to"`
	Chain         string     `json:"chain"`
	Boosted       bool       `json:"boosted,omitempty" doc:"fronted by the pool vault, with others in one transaction"`
	Subaccount    string     `json:"subaccount,omitempty" doc:"Bitcoin: 0x03 and the number of the address, in the minter's account book"`
	Batch         uint64     `json:"batch,omitempty"`
	Binding       uint64     `json:"binding"`
	Anchor        string     `json:"anchor,omitempty" doc:"chain resource that its transaction must consume"`
	TxID          string     `json:"txid,omitempty" doc:"of the final spend"`
	Confirmations uint64     `json:"confirmations"`
	Required      uint64     `json:"requiredConfirmations"`
	Created       time.Time  `json:"created"`
	Closed        *time.Time `json:"closed,omitempty"`
}

// OutflowDetail is an outflow with everything tried for it.
type OutflowDetail struct {
	Meta
	Outflow
	Attempts []Attempt       `json:"attempts"`
	Local    OutflowSessions `json:"local" doc:"sessions this node took part in"`
}

// OutflowSessions are this node's own sessions for an outflow.
type OutflowSessions struct {
	Signed  []SignedSession `json:"signed"`
	Running []Session       `json:"running"`
}

// Attempt is one planned transaction with those who are to sign it.
type Attempt struct {
	Attempt  uint64    `json:"attempt"`
	Kind     string    `json:"kind"`
	LogIndex uint64    `json:"logIndex" doc:"that planned it"`
	At       string    `json:"at" doc:"its place in the hash chain"`
	Planned  time.Time `json:"planned"`
	Deadline time.Time `json:"deadline"`
	Epoch    uint64    `json:"epoch"`
	M        int       `json:"m"`
	Roster   []string  `json:"roster" doc:"member names, in the order in which committees are formed"`
	GaveUp   []string  `json:"gaveUp"`
}

// Session is a signing session under way on the node asked.
type Session struct {
	Session string    `json:"session"`
	Batch   uint64    `json:"batch"`
	Attempt uint64    `json:"attempt"`
	Input   uint64    `json:"input"`
	Turn    uint64    `json:"turn"`
	Parties []string  `json:"parties"`
	Round   int       `json:"round"`
	Waiting []string  `json:"waitingFor"`
	Since   time.Time `json:"since"`
}

// SignedSession is a finished one.
type SignedSession struct {
	Session   string    `json:"session"`
	Attempt   uint64    `json:"attempt"`
	Input     uint64    `json:"input"`
	Turn      uint64    `json:"turn"`
	Parties   []string  `json:"parties"`
	Signature string    `json:"signature" doc:"r‖s in hex"`
	TxID      string    `json:"txid,omitempty"`
	Finished  time.Time `json:"finished"`
}

// Sessions are those under way.
type Sessions struct {
	Meta
	Sessions []Session `json:"sessions"`
}

// Outflows is a page of them, newest first.
type Outflows struct {
	Meta
	Outflows []Outflow `json:"outflows"`
	Next     string    `json:"next,omitempty" doc:"cursor of the next page"`
}

// Why says what an outflow waits for.
type Why struct {
	Meta
	Outflow    uint64    `json:"outflow"`
	State      string    `json:"state"`
	Attempt    *uint64   `json:"attempt,omitempty"`
	Turn       *uint64   `json:"turn,omitempty"`
	Session    string    `json:"session,omitempty"`
	WaitingFor []Waiting `json:"waiting_for"`
	PassedOver []string  `json:"passed_over,omitempty" doc:"members that stand last in the attempt's roster for what was proven against them"`
	Next       *Next     `json:"next,omitempty"`
}

// Waiting is one thing waited for.
type Waiting struct {
	Peer  string     `json:"peer,omitempty"`
	What  string     `json:"what"`
	Since *time.Time `json:"since,omitempty"`
	Have  string     `json:"have,omitempty"`
	Need  string     `json:"need,omitempty"`
}

// Next is what happens by itself.
type Next struct {
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// Price is what an asset is worth, USD · 10⁸ per whole token.
type Price struct {
	Low     string    `json:"low" doc:"what collateral is worth"`
	High    string    `json:"high" doc:"what debt weighs"`
	Closed  time.Time `json:"closed"`
	Age     uint64    `json:"ageSeconds"`
	Stale   bool      `json:"stale" doc:"too old to borrow on, or to withdraw with debt"`
	Suspect bool      `json:"suspect" doc:"jumped in one round and is not confirmed: gates take the worse of old and new, nothing is liquidated on it"`

	Round        uint64     `json:"round"`
	Reporters    []string   `json:"reporters" doc:"members whose reports the round closed on"`
	SuspectSince *time.Time `json:"suspectSince,omitempty"`
	TWAP         string     `json:"twap,omitempty" doc:"time-weighted average of the 30 minutes before the round closed; absent in the first"`
	FromTWAP     *uint64    `json:"fromTwapBps,omitempty" doc:"distance of low or high, whichever is farther, from the average"`
	AlertSince   *time.Time `json:"alertSince,omitempty" doc:"since when that is above the parameter; a warning, nothing is refused for it"`
}

// FeeQuote is what a payout costs now, taken from the amount.
type FeeQuote struct {
	Fee       string `json:"fee"`
	Suggested string `json:"suggestedMaxFee" doc:"room for the rate to rise"`
	Age       uint64 `json:"ageSeconds" doc:"of the fee rate"`
	Unknown   string `json:"unknown,omitempty" doc:"why there is no quote"`
}

// Pool is the lending book of one asset.
type Pool struct {
	ID            string   `json:"id"`
	Symbol        string   `json:"symbol"`
	Decimals      uint8    `json:"decimals"`
	Chain         string   `json:"chain"`
	Cash          string   `json:"cash"`
	Reserved      string   `json:"reserved"`
	Supplied      string   `json:"supplied"`
	Borrowed      string   `json:"borrowed"`
	Deficit       string   `json:"deficit"`
	Utilisation   string   `json:"utilisation" doc:"RAY"`
	SupplyRate    string   `json:"supplyRate" doc:"per year, RAY"`
	BorrowRate    string   `json:"borrowRate" doc:"per year, RAY"`
	SupplyAPY     string   `json:"supplyApy" doc:"with interest on interest, RAY"`
	BorrowAPY     string   `json:"borrowApy" doc:"with interest on interest, RAY"`
	LTV           uint64   `json:"ltvBps"`
	LT            uint64   `json:"liquidationThresholdBps"`
	Bonus         uint64   `json:"liquidationBonusBps"`
	ReserveFactor uint64   `json:"reserveFactorBps"`
	SupplyCap     string   `json:"supplyCap" doc:"0: none"`
	BorrowCap     string   `json:"borrowCap" doc:"0: none"`
	MinSupply     string   `json:"minSupply"`
	MinBorrow     string   `json:"minBorrow"`
	MinWithdraw   string   `json:"minWithdraw"`
	Active        bool     `json:"active"`
	Paused        bool     `json:"paused"`
	Frozen        bool     `json:"frozen"`
	BorrowEnabled bool     `json:"borrowEnabled"`
	Price         *Price   `json:"price" doc:"null before the first round"`
	PayoutFee     FeeQuote `json:"payoutFee"`
	SupplyRoom    *string  `json:"supplyHeadroom,omitempty" doc:"what the supply cap leaves; absent: no cap"`
	BorrowRoom    *string  `json:"borrowHeadroom,omitempty" doc:"what the borrow cap leaves; absent: no cap"`
	Blocks        []Block  `json:"blocks" doc:"what nobody can do now, and why"`
	Queued        uint64   `json:"queuedPayouts" doc:"payouts of this asset not planned yet"`
	QueuedAmount  string   `json:"queuedAmount"`
	ClearingRate  string   `json:"clearingRate" doc:"borrow rate at 100 % utilisation, per year, RAY: what repayments are drawn by when nothing is left"`
}

// Block is an operation that the pool refuses to everybody now.
type Block struct {
	Operation string `json:"operation" enum:"supply,withdraw,borrow"`
	Code      string `json:"code" doc:"that it would be refused with; for supply, the reason of suspense"`
	Limit     string `json:"limit,omitempty"`
	Found     string `json:"found,omitempty"`
}

// PoolFigures are a pool before or after an action. RAY.
type PoolFigures struct {
	Pool        string `json:"pool"`
	Cash        string `json:"cash"`
	Utilisation string `json:"utilisation"`
	SupplyRate  string `json:"supplyRate"`
	BorrowRate  string `json:"borrowRate"`
	SupplyAPY   string `json:"supplyApy"`
	BorrowAPY   string `json:"borrowApy"`
}

// AtRisk is one page of the accounts below health factor 1.
type AtRisk struct {
	Meta
	Accounts []AtRiskAccount `json:"accounts"`
	Next     string          `json:"next,omitempty" doc:"cursor of the next page"`
}

// AtRiskAccount is an account that was below health factor 1 when the ledger
// last looked, as it stands now. What it holds and owes: /v1/accounts/{id}.
type AtRiskAccount struct {
	ID                string    `json:"id"`
	HealthFactor      *string   `json:"healthFactor" doc:"WAD; null where it owes nothing any more or cannot be weighed"`
	HealthFactorShown *string   `json:"healthFactorShown" example:"0.97"`
	Collateral        string    `json:"collateralValue"`
	Debt              string    `json:"debtValue"`
	Since             time.Time `json:"since" doc:"when the ledger first found it there"`
	Code              string    `json:"code" doc:"OK, or why nobody may liquidate it now, such as GRACE or PRICE_SUSPECT"`
}

// Pools are all of them.
type Pools struct {
	Meta
	Pools []Pool `json:"pools"`
}

// PoolDetail is one of them.
type PoolDetail struct {
	Meta
	Pool
}

// Asset is what is listed.
type Asset struct {
	ID       string `json:"id"`
	Symbol   string `json:"symbol"`
	Decimals uint8  `json:"decimals"`
	Chain    string `json:"chain"`
	CAIP2    string `json:"caip2"`
	Token    string `json:"token,omitempty"`
	Pool     bool   `json:"pool" doc:"whether it can be supplied and borrowed"`
	Price    *Price `json:"price"`
}

// Assets are all of them.
type Assets struct {
	Meta
	Assets []Asset `json:"assets"`
}

// Key is one master key. A client pins it at first use.
type Key struct {
	Key       string `json:"key"`
	Scheme    string `json:"scheme" enum:"ecdsa,ed25519"`
	MasterPub string `json:"masterPub" doc:"hex"`
	Epoch     uint64 `json:"epoch"`
}

// Member is a seat of the epoch in force.
type Member struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Operator  string     `json:"operator"`
	LastHeard *time.Time `json:"lastHeard,omitempty" doc:"ledger time of its last clock"`
	Present   bool       `json:"present"`
	Heights   []Height   `json:"heights"`
	Blamed    *Blamed    `json:"blamed,omitempty" doc:"what was proven against it since it took its seat"`
}

// Blamed is what more members than can be traitors have verified against one.
type Blamed struct {
	Proofs    uint64     `json:"proofs" doc:"at most one a minute counts"`
	Check     string     `json:"check" doc:"that its newest bad message failed, as the specification of signing numbers it; E6: two messages in one slot"`
	Round     uint8      `json:"round"`
	Batch     uint64     `json:"batch"`
	Session   string     `json:"session"`
	Evidence  string     `json:"evidence" doc:"SHA-256 of the envelope: its name in evidence/ of the nodes that verified it"`
	At        time.Time  `json:"at" doc:"ledger time of the newest"`
	LastUntil *time.Time `json:"lastUntil,omitempty" doc:"until when it stands last in new rosters; none: it does not any more"`
}

// Height is what a member attested of a chain.
type Height struct {
	Chain  string `json:"chain"`
	Height uint64 `json:"height"`
	Hash   string `json:"hash"`
}

// Members are those of the epoch in force.
type Members struct {
	Meta
	Epoch   uint64   `json:"epoch"`
	Members []Member `json:"members"`
}

// Chain is one chain as the ledger sees it, and as this node follows it.
type Chain struct {
	Name    string            `json:"name"`
	CAIP2   string            `json:"caip2"`
	Height  uint64            `json:"height" doc:"largest that a FactQuorum attested"`
	Reached *time.Time        `json:"reached,omitempty"`
	Final   uint64            `json:"finality" doc:"blocks after which a block counts as final; 0: the chain says so itself"`
	Rate    uint64            `json:"feeRate" doc:"sat/kvB, or base fee in wei"`
	Tip     uint64            `json:"tip,omitempty" doc:"wei"`
	RateAge *uint64           `json:"feeRateAgeSeconds,omitempty"`
	Vaults  []Address         `json:"vaults,omitempty" doc:"hot and gas addresses and the Bitcoin main address; absent until keys"`
	Floats  map[string]string `json:"gasFloats,omitempty" doc:"base units booked for fees, by the vault's role"`
	Local   *LocalChain       `json:"local,omitempty"`
}

// LocalChain is a chain as the node asked follows it.
type LocalChain struct {
	Name    string    `json:"name,omitempty"`
	Height  uint64    `json:"height"`
	Final   uint64    `json:"final"`
	Read    time.Time `json:"read"`
	Failing string    `json:"failing,omitempty"`
}

// Chains are all of them.
type Chains struct {
	Meta
	Chains []Chain `json:"chains"`
}

// Cluster is what a client pins, and the cluster in figures.
type Cluster struct {
	Meta
	Cluster    string    `json:"cluster" doc:"as request texts name it"`
	Genesis    string    `json:"genesis" doc:"SHA-256 in hex"`
	Name       string    `json:"name"`
	Brand      string    `json:"brand" doc:"first words of request texts"`
	Version    uint64    `json:"ledgerVersion"`
	Keys       []Key     `json:"keys" doc:"empty until the first epoch with keys is in force"`
	Epoch      uint64    `json:"epoch"`
	N          int       `json:"n"`
	M          int       `json:"m" doc:"members needed for a signature"`
	F          int       `json:"f" doc:"traitors tolerated"`
	Q          int       `json:"q" doc:"approvals in a certificate"`
	FactQuorum int       `json:"factQuorum"`
	Members    []Member  `json:"members"`
	Chains     []Chain   `json:"chains"`
	Wallets    []string  `json:"walletChains" doc:"CAIP-2 ids whose wallets may sign although no coins are there"`
	LedgerTime time.Time `json:"ledgerTime"`
	LogIndex   uint64    `json:"logIndex"`
	Head       string    `json:"head"`
	CatchingUp bool      `json:"catchingUp"`
	Halted     string    `json:"halted,omitempty" doc:"why nothing is signed"`
	Paused     *Paused   `json:"paused,omitempty" doc:"outflows, by one member"`
	BorrowOff  bool      `json:"borrowDisabled"`
}

// Certificate is Q approvals of one head, with the headers that lead to it.
type Certificate struct {
	Meta
	Height      uint64   `json:"height"`
	Head        string   `json:"head"`
	Epoch       uint64   `json:"epoch"`
	Signers     []string `json:"signers"`
	Certificate string   `json:"certificate" doc:"canonical CBOR in hex, for verifying"`
	Headers     []string `json:"headers" doc:"canonical CBOR in hex, ascending"`
}

// Proof is an account's place under a certified root, for coffer verify-proof.
type Proof struct {
	Meta
	Account    string `json:"account"`
	RootHeight uint64 `json:"rootHeight" doc:"LogIndex whose state is proven"`
	Height     uint64 `json:"height" doc:"LogIndex of the certified head that names the root"`
	Head       string `json:"head"`
	Proof      string `json:"proof" doc:"canonical CBOR in hex: members since genesis, certificate, account, path, sums"`
}

// Status is one node's public account of itself.
type Status struct {
	Meta
	Name       string               `json:"name"`
	Member     string               `json:"member"`
	Version    string               `json:"version"`
	Role       string               `json:"role"`
	Leader     string               `json:"leader,omitempty"`
	Applied    uint64               `json:"applied"`
	Lag        uint64               `json:"lag"`
	Ready      bool                 `json:"ready"`
	NotReady   []string             `json:"notReady,omitempty"`
	Cluster    string               `json:"cluster"`
	Checkpoint string               `json:"checkpoint,omitempty" doc:"HEIGHT:HEAD of the newest certified head, for the operator of a node that joins"`
	Epoch      uint64               `json:"epoch"`
	N          int                  `json:"n"`
	M          int                  `json:"m"`
	F          int                  `json:"f"`
	MaySpare   int                  `json:"maySpare" doc:"members heard from beyond the m that signing needs; negative: signing waits"`
	LedgerTime time.Time            `json:"ledgerTime"`
	CatchingUp bool                 `json:"catchingUp"`
	Halted     string               `json:"halted,omitempty"`
	Paused     *Paused              `json:"paused,omitempty"`
	Members    []Member             `json:"members"`
	Chains     []Chain              `json:"chains"`
	Prices     map[string]*Price    `json:"prices"`
	Open       map[string]uint64    `json:"openOutflows" doc:"by state"`
	OpenSince  map[string]time.Time `json:"openOutflowsSince" doc:"by state, when the oldest was accepted"`
	Caps       []CapLeft            `json:"caps" doc:"of assets that have one"`
	Custody    []Custody            `json:"custody" doc:"what the chains hold beside the books, by asset"`
	BorrowOff  bool                 `json:"borrowOff,omitempty"`
	Oldest     *time.Time           `json:"oldestOpenOutflow,omitempty"`
	Seats      []Seat               `json:"seats" doc:"everybody who is, was or may become a member"`
	Changes    []PendingChange      `json:"changes" doc:"of the committee: decided and not begun"`
	Next       *NextEpoch           `json:"nextEpoch,omitempty" doc:"the epoch that is being prepared or opened"`
	Dropped    *DroppedEpoch        `json:"droppedEpoch,omitempty" doc:"the last epoch number that led to nothing"`
	Drilled    *time.Time           `json:"drilled,omitempty" doc:"when a drill of the KeyShares in force was last told; none: none was"`
	DrillDue   *time.Time           `json:"drillDue,omitempty" doc:"when the next drill is due, once there are keys"`
	Local      LocalStatus          `json:"local"`
}

// Custody is what members attested of an asset at one block, beside what the books
// had there. Amounts are base units.
type Custody struct {
	Asset   string     `json:"asset"`
	Height  uint64     `json:"height" doc:"of the chain; 0: no balance counted yet"`
	Amount  string     `json:"amount" doc:"at addresses of the cluster"`
	Leaving string     `json:"leaving" doc:"what its own transactions took by then and the books still have"`
	Books   string     `json:"books" doc:"what custody must hold"`
	Nobodys string     `json:"unattributed" doc:"seen at the vaults beyond the books: strangers' coins, and floats that no vote has booked yet; on Ethereum it must stay there as well"`
	AtGas   string     `json:"unattributedAtGas" doc:"of unattributed what lies at the gas address, the rest at the hot one (Ethereum)"`
	Missing string     `json:"missing"`
	Good    *time.Time `json:"good,omitempty" doc:"when the newest balance that covered the books was asked for; none or over ten minutes ago: nothing is signed"`
	Halted  string     `json:"halted,omitempty" doc:"why nothing of the asset is planned or signed"`
}

// Seat is a node's place in the committee's life cycle.
type Seat struct {
	Member string     `json:"member"`
	Name   string     `json:"name"`
	State  string     `json:"state" enum:"candidate,admitted,resharing,active,leaving,retired"`
	Until  *time.Time `json:"until,omitempty" doc:"when its quarantine, or the vote about it, ends"`
	Epoch  uint64     `json:"epoch,omitempty" doc:"in force; of resharing: the next; of retired: its last"`
}

// PendingChange is a change of the committee that was decided and is not begun.
type PendingChange struct {
	Kind  string    `json:"kind" enum:"admit,replace,evict,leave,refresh,rollback"`
	In    string    `json:"in,omitempty" doc:"who takes a seat"`
	Out   string    `json:"out,omitempty" doc:"who gives one up"`
	After string    `json:"after" doc:"the committee after it, in words"`
	Since time.Time `json:"since" doc:"when it was decided"`
	Why   string    `json:"why,omitempty" doc:"why it waits"`
	For   []string  `json:"waitsFor,omitempty" doc:"members that are not heard and needed"`
}

// NextEpoch is how far the preparation of an epoch came.
type NextEpoch struct {
	Number   uint64     `json:"number"`
	Kind     string     `json:"kind" enum:"keygen,admit,replace,evict,leave,refresh,rollback"`
	After    string     `json:"after" doc:"the committee in it, in words"`
	Began    *time.Time `json:"began,omitempty"`
	Deadline *time.Time `json:"deadline,omitempty" doc:"when it is dropped and the present epoch remains; of a keygen none"`
	Opened   bool       `json:"opened" doc:"it waits for the certificate of the epoch in force"`
	Why      string     `json:"why" doc:"what it waits for"`
	Keys     []NextKey  `json:"keys"`
}

// NextKey is how far one key of the next epoch came.
type NextKey struct {
	Key      string     `json:"key"`
	Stage    string     `json:"stage" enum:"key shares,test signatures,done"`
	Try      uint64     `json:"try"`
	Tries    uint64     `json:"tries,omitempty" doc:"at most; of a keygen any number"`
	Deadline *time.Time `json:"deadline,omitempty" doc:"of this try"`
	Ready    []string   `json:"ready" doc:"who holds a new key share"`
	Missing  []string   `json:"missing" doc:"who has not said that it is ready, or has not attested every test signature"`
	Tests    string     `json:"tests,omitempty" doc:"test signatures attested by all, of how many"`
	Blamed   []string   `json:"blamed,omitempty" doc:"named by members that gave up a try: a hint, never proof"`
}

// DroppedEpoch is an epoch number that was used up.
type DroppedEpoch struct {
	Number  uint64    `json:"number"`
	Kind    string    `json:"kind"`
	How     string    `json:"how" enum:"vote,deadline,tries,rollback"`
	Time    time.Time `json:"time"`
	Missing []string  `json:"missing,omitempty" doc:"who was not ready for every key"`
	Blamed  []string  `json:"blamed,omitempty"`
}

// CapLeft is how much may still leave of an asset, base units, as of the last
// draw or tick.
type CapLeft struct {
	Asset    string `json:"asset"`
	Window   string `json:"window" enum:"hour,day"`
	Capacity string `json:"capacity"`
	Left     string `json:"left"`
}

// LocalStatus is what only the node itself knows.
type LocalStatus struct {
	Sessions  int       `json:"sessions" doc:"signing sessions under way that it takes part in"`
	Started   time.Time `json:"started"`
	Keys      []string  `json:"keys" doc:"ids of master keys it holds a KeyShare of"`
	PreParams int       `json:"preParams"`
	Halted    string    `json:"halted,omitempty"`
}

// NodeDetail is Status with what only operators see.
type NodeDetail struct {
	Status
	Operator map[string]any `json:"operator"`
}

// Probe answers healthz and readyz.
type Probe struct {
	Meta
	OK     bool     `json:"ok"`
	Reason []string `json:"reason,omitempty"`
}

// Activities is a page of what an account did and what was done to it, newest
// first.
type Activities struct {
	Meta
	Since      uint64     `json:"since" doc:"from this LogIndex on nothing is missing; of what is older, deposits and payouts are shown as far as the ledger keeps them, and the rest is in the history. 0: this node's memory cannot be read now"`
	Activities []Activity `json:"activities"`
	Next       string     `json:"next,omitempty" doc:"cursor of the next page"`
	Local      []Activity `json:"local,omitempty" doc:"deposits that this node alone saw; first page"`
}

// Activity is one operation with the word for how far it came.
type Activity struct {
	ID            string    `json:"id" doc:"stable name: its kind of thing and that one's id" example:"outflow:17"`
	Kind          string    `json:"kind" enum:"supply,repay,borrow,withdraw,claim,repay-from-supply,liquidated,liquidates,loan,other"`
	Status        string    `json:"status" enum:"action_required,processing,confirming,active,completed,failed,expired" doc:"status word"`
	State         string    `json:"state,omitempty" doc:"of the ledger's state machine, where it has one"`
	Time          time.Time `json:"time" doc:"when it began"`
	LogIndex      uint64    `json:"logIndex,omitempty" doc:"that did it, where it was done at once"`
	Pool          string    `json:"pool,omitempty"`
	Symbol        string    `json:"symbol,omitempty"`
	Decimals      uint8     `json:"decimals,omitempty"`
	Amount        string    `json:"amount" doc:"base units"`
	Confirmations uint64    `json:"confirmations"`
	Required      uint64    `json:"requiredConfirmations" doc:"0: nothing on a chain"`
	Shortfall     *Short    `json:"shortfall,omitempty" doc:"what is missing where it is too small"`
	Reason        string    `json:"reason,omitempty" doc:"code that keeps it from going on"`
	Detail        string    `json:"detail,omitempty" doc:"what to do, where something is to be done"`
	Inflow        string    `json:"inflow,omitempty"`
	Outflow       uint64    `json:"outflow,omitempty"`
	Liquidation   uint64    `json:"liquidation,omitempty"`
	TxID          string    `json:"txid,omitempty"`
}
