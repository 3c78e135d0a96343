package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) requests(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "post-request", Method: http.MethodPost, Path: "/v1/requests",
		Summary:      "Submit a signed request",
		Description:  "Waits until this replica applied it. The same text is one request, on any node and whatever signature comes with it.",
		MaxBodyBytes: maxBody, Errors: []int{400, 401, 403, 404, 409, 413, 422, 500, 503},
		Responses: map[string]*huma.Response{"202": {Description: "Not applied yet: see Location"}},
	}, s.postRequest)
	huma.Register(api, huma.Operation{
		OperationID: "render-request", Method: http.MethodPost, Path: "/v1/requests/render",
		Summary:      "The text of a command",
		Description:  "A convenience. Never sign a node's text unseen: render it yourself and compare.",
		MaxBodyBytes: maxBody, Errors: []int{400, 404, 413},
	}, s.renderRequest)
	huma.Register(api, huma.Operation{
		OperationID: "preview-request", Method: http.MethodPost, Path: "/v1/requests/preview",
		Summary:      "What a text would do now, signature, nonce and expiry aside",
		MaxBodyBytes: maxBody, Errors: []int{400, 404, 413},
	}, s.previewRequest)
	huma.Register(api, huma.Operation{
		OperationID: "get-request", Method: http.MethodGet, Path: "/v1/requests/{id}",
		Summary: "What became of a request", Errors: []int{400, 404, 503},
	}, s.getRequest)
}

type postInput struct {
	Wait string `query:"wait" doc:"how long at most, up to 30s" example:"5s"`
	Body client.Submission
}

type postReply struct {
	Status   int
	Location string `header:"Location"`
	Body     client.Request
}

// postRequest submits once however often the text is posted.
func (s *server) postRequest(ctx context.Context, in *postInput) (*postReply, error) {
	wait, err := s.wait(in.Wait, postWait)
	if err != nil {
		return nil, err
	}
	intent, err := intentOf(in.Body)
	if err != nil {
		return nil, s.problem(ledger.Malformed, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	v, c, err := s.courtesy(ctx, intent)
	if err != nil {
		return nil, s.answer(err)
	}
	id := ledger.RequestID(intent.Text)
	account := accountID(c)
	if r, ok := v.result(account, id); ok {
		return s.applied(v, c, id, Outcome{Height: r.Height, Code: r.Code})
	}
	// Counted behind the signature: before it, anybody could use up another's.
	if hasLimits(ctx) {
		if after, ok := s.byAccount.take(account, time.Now()); !ok {
			return nil, s.withID(s.shed(fmt.Sprintf("%d requests a second of one account", accountPerSecond), after), id)
		}
	}
	s.posted.add(id, waiting{account: account, nonce: c.Nonce})
	f, err := s.fly(ctx, id, intent)
	if err != nil {
		return nil, s.answer(err)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return s.pending(c, id), nil
	}
	if f.err != nil {
		if errors.Is(f.err, context.DeadlineExceeded) {
			return s.pending(c, id), nil
		}
		return nil, s.withID(s.answer(f.err), id)
	}
	return s.applied(s.view(), c, id, f.outcome)
}

// intentOf is the command that a submission asks for.
func intentOf(b client.Submission) (ledger.Intent, error) {
	x, err := extrasOf(b.Signed)
	if err != nil {
		return ledger.Intent{}, err
	}
	in := ledger.Intent{Scheme: b.Scheme, Text: b.Text, Signature: b.Signature, Extras: x}
	if b.CoSignature != nil {
		if x, err = extrasOf(*b.CoSignature); err != nil {
			return ledger.Intent{}, fmt.Errorf("coSignature: %w", err)
		}
		in.Co = &ledger.CoSignature{Scheme: b.CoSignature.Scheme, Signature: b.CoSignature.Signature, Extras: x}
	}
	return in, nil
}

func extrasOf(s client.Signed) (address.Extras, error) {
	der, err := hex.DecodeString(s.PublicKey)
	if err != nil {
		return address.Extras{}, errors.New("publicKey: want hex")
	}
	return address.Extras{ApplicationDomain: s.ApplicationDomain, Format: s.Format, PublicKeyDER: der}, nil
}

// flight is one text on its way through Submit. Whoever posts it meanwhile
// waits for the same one.
type flight struct {
	done    chan struct{}
	outcome Outcome
	err     error
}

func (s *server) fly(ctx context.Context, id ledger.Hash, in ledger.Intent) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.flights[id]; ok {
		return f, nil
	}
	if len(s.flights) >= maxFlights {
		return nil, &Overloaded{Limit: fmt.Sprintf("%d posted requests under way", maxFlights), After: time.Second}
	}
	f := &flight{done: make(chan struct{})}
	s.flights[id] = f
	// The client may leave; the command is on its way all the same, and the
	// next who asks for it finds it here.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxWait)
	go func() {
		defer cancel()
		f.outcome, f.err = s.b.Submit(ctx, ledger.Marshal(ledger.Command{Intent: &in}))
		s.mu.Lock()
		delete(s.flights, id)
		s.mu.Unlock()
		close(f.done)
	}()
	return f, nil
}

func (s *server) pending(c *address.Command, id ledger.Hash) *postReply {
	r := &postReply{Status: http.StatusAccepted, Location: "/v1/requests/" + id.String() + "?account=" + accountID(c)}
	r.Body = client.Request{ID: id.String(), Account: accountID(c), Nonce: c.Nonce, Phase: phasePending}
	r.Body.AsOf = s.b.View().Height
	return r
}

const (
	phasePending = "pending"
	phaseApplied = "applied"
)

// applied is the answer to a request whose outcome is known.
func (s *server) applied(v view, c *address.Command, id ledger.Hash, o Outcome) (*postReply, error) {
	if o.Code != ledger.OK {
		p := s.refusal(v, c, o.Code, "")
		_, kept := v.result(accountID(c), id)
		p.Retryable = p.Retryable && !kept
		p.LogIndex, p.AsOf = o.Height, v.Height
		return nil, s.withID(p, id)
	}
	r := &postReply{Status: http.StatusOK, Body: v.request(c, id, o)}
	r.Body.AsOf = v.Height
	return r, nil
}

func (s *server) withID(err error, id ledger.Hash) error {
	if p, ok := err.(*client.Problem); ok {
		p.RequestID = id.String()
	}
	return err
}

// courtesy refuses what the ledger would refuse anyway, in the ledger's order
// (spec: lending §5), so that it is not logged. It never decides: what an older
// view could not know is judged again on a view as new as the question.
func (s *server) courtesy(ctx context.Context, in ledger.Intent) (view, *address.Command, error) {
	v := s.view()
	c, sure, err := s.judge(ctx, v, in)
	if err == nil || sure {
		return v, c, err
	}
	index, err := s.b.ReadIndex(ctx)
	if err != nil {
		return v, c, fmt.Errorf("read index: %w", err)
	}
	if err := s.b.WaitHeight(ctx, index); err != nil {
		return v, c, fmt.Errorf("wait for LogIndex %d: %w", index, err)
	}
	v = s.view()
	c, _, err = s.judge(ctx, v, in)
	return v, c, err
}

// judge says why the ledger would refuse in, and whether a newer view could not
// say otherwise.
func (s *server) judge(ctx context.Context, v view, in ledger.Intent) (c *address.Command, sure bool, err error) {
	id := ledger.RequestID(in.Text)
	c, err = v.Grammar().Parse(in.Text)
	if c == nil {
		return nil, true, s.withID(s.problem(ledger.Malformed, err.Error()), id)
	}
	refuse := func(code ledger.Code, sure bool, about string) (*address.Command, bool, error) {
		p := s.refusal(v, c, code, about)
		p.AsOf = v.Height
		return c, sure, s.withID(p, id)
	}
	account := accountID(c)
	open := c.Action == address.ActionOpenAccount || c.Action == address.ActionOpenLoan
	link := c.Action == address.ActionLinkWallet
	acc, exists := v.account(account)
	_, kept := v.result(account, id)
	switch {
	case c.Cluster != v.ClusterName():
		return refuse(ledger.WrongCluster, true, "")
	case !v.TakesScheme(in.Scheme, c.Signer.Namespace):
		return refuse(ledger.SchemeUnsupported, in.Scheme != address.SchemeEIP712, in.Scheme) // a newer view may take eip712
	case in.Co != nil && !link:
		return refuse(ledger.Malformed, true, "coSignature is for Link wallet")
	case in.Co != nil && !v.TakesScheme(in.Co.Scheme, c.NewWallet.Namespace):
		return refuse(ledger.SchemeUnsupported, in.Co.Scheme != address.SchemeEIP712, in.Co.Scheme)
	case kept:
		return c, true, nil
	case v.Catching:
		return refuse(ledger.CatchingUp, false, "")
	case len(v.keys()) == 0:
		return refuse(ledger.Halted, false, "no keys yet")
	case open && exists:
		return refuse(ledger.AccountExists, false, account)
	case !open && !exists:
		return refuse(ledger.UnknownAccount, false, account)
	case !open && !slices.Contains(acc.Wallets, c.Signer.String()):
		return refuse(ledger.SignerNotLinked, false, "")
	case c.Expires < 0 || uint64(c.Expires) < v.Time():
		return refuse(ledger.Expired, true, "")
	}
	checks := v.IntentChecks(&in)
	wanted := 1
	if link {
		wanted = 2
	}
	good := len(checks) == wanted // fewer: a wallet cannot sign under its scheme, or the new one did not
	for _, check := range checks {
		ok, err := s.b.Verdict(ctx, check)
		if err != nil {
			return c, true, err
		}
		good = good && ok
	}
	switch {
	case !good:
		s.log.Debug("api: bad signature", "request", id.String(), "scheme", in.Scheme, "signer", c.Signer.String())
		return refuse(ledger.BadSignature, true, "")
	case !open && c.Nonce < acc.Nonce:
		return refuse(ledger.BadNonce, true, "")
	}
	return c, true, nil
}

// getInput asks for one request.
type getInput struct {
	ID      string `path:"id" doc:"SHA-256 of the text in hex"`
	Account string `query:"account" doc:"whose request it is: needed where this node has not seen it since its start"`
	Wait    string `query:"wait" doc:"how long to wait for it to be applied, and for minIndex, up to 30s" example:"20s"`

	MinIndex    uint64 `query:"minIndex" doc:"wait until this replica reached this LogIndex"`
	Consistency string `query:"consistency" doc:"linearizable: not older than anything acknowledged before" example:"linearizable"`
}

func (s *server) getRequest(ctx context.Context, in *getInput) (*reply[client.Request], error) {
	wait, err := s.wait(in.Wait, 0)
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(in.ID)
	if err != nil || len(raw) != len(ledger.Hash{}) {
		return nil, s.problem(ledger.Malformed, "id: want 64 hex digits")
	}
	id := ledger.Hash(raw)
	v, err := s.fresh(ctx, &ReadInput{MinIndex: in.MinIndex, Wait: in.Wait, Consistency: in.Consistency})
	if err != nil {
		return nil, s.answer(err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for ; ; v = s.view() {
		r, known := s.lookUp(v, id, in.Account)
		if known && r.Phase == phaseApplied {
			r.AsOf = v.Height
			return &reply[client.Request]{r}, nil
		}
		if err := s.b.WaitHeight(ctx, v.Height+1); err != nil {
			if !known {
				return nil, s.withID(s.problem(unknownRequest, ""), id)
			}
			r.AsOf = v.Height
			return &reply[client.Request]{r}, nil
		}
	}
}

// lookUp finds a request in the ledger's stored results, else in this node's
// own history.
func (s *server) lookUp(v view, id ledger.Hash, account string) (client.Request, bool) {
	old, applied := s.history.Request(id)
	w, known := s.posted.find(id)
	switch {
	case applied:
		account = old.Account
	case known:
		account = w.account
	}
	if r, ok := v.result(account, id); ok {
		return v.stored(account, r), true
	}
	if !applied && !known {
		return client.Request{}, false
	}
	r := client.Request{ID: id.String(), Account: account, Nonce: w.nonce, Phase: phasePending}
	if applied {
		r.Nonce, r.Phase, r.Code, r.LogIndex = old.Nonce, phaseApplied, string(old.Code), old.Height
		for _, e := range old.Entries {
			if e.Event.Name == "outflow" {
				r.Outflow = e.Event.Outflow
			}
		}
		if o, ok := v.Outflows.Get(r.Outflow); ok {
			r.Status = v.outflowStatus(o)
		}
	}
	return r, true
}

type renderInput struct{ Body client.RenderRequest }

// maxLoans bounds the search for the nonce of a signer's next simple loan.
const maxLoans = 10_000

// lifetime of a rendered request: half of what the ledger allows.
const lifetime = 5 * time.Minute

func (s *server) renderRequest(_ context.Context, in *renderInput) (*reply[client.Text], error) {
	v, b := s.view(), in.Body
	signer, err := address.ParseCAIP10(b.Signer)
	if err != nil {
		return nil, s.problem(ledger.Malformed, "signer: "+err.Error())
	}
	c := &address.Command{
		Action: b.Action, Pool: b.Pool, Signer: signer, Cluster: v.ClusterName(),
		Expires: v.now().Add(lifetime).Unix(),
	}
	if !b.Expires.IsZero() {
		c.Expires = b.Expires.Unix()
	}
	c.Account = address.AccountID(c.Cluster, signer)
	if b.Account != "" {
		if c.Account, err = client.ParseAccount(b.Account); err != nil {
			return nil, s.problem(ledger.Malformed, err.Error())
		}
	}
	if acc, ok := v.account(accountID(c)); ok && c.Action != address.ActionOpenAccount && c.Action != address.ActionOpenLoan {
		c.Nonce = acc.Nonce
	}
	if b.Nonce != nil {
		c.Nonce = *b.Nonce
	}
	if c.Action == address.ActionOpenLoan {
		c.Account = address.LoanID(c.Cluster, signer, c.Nonce)
		for b.Nonce == nil && c.Nonce < maxLoans && v.has(accountID(c)) {
			c.Nonce++
			c.Account = address.LoanID(c.Cluster, signer, c.Nonce)
		}
	}
	g := v.Grammar()
	for _, f := range []struct {
		name, text string
		at         *address.CAIP10
	}{
		{"to", b.To, &c.To}, {"refundTo", b.RefundTo, &c.RefundTo}, {"newWallet", b.NewWallet, &c.NewWallet}, {"wallet", b.Wallet, &c.Wallet},
		{"autoWithdrawTo", b.AutoWithdrawTo, &c.AutoWithdrawTo},
	} {
		if f.text == "" {
			continue
		}
		if *f.at, err = address.SplitCAIP10(f.text); err != nil {
			return nil, s.problem(ledger.Malformed, f.name+": "+err.Error())
		}
	}
	c.CollateralPool, c.Collateral = b.CollateralPool, g.Amount(b.CollateralPool, b.Collateral)
	c.Outflow, c.On = b.Outflow, b.On
	feePool := b.Pool
	if b.Action == address.ActionLiquidate {
		feePool = b.CollateralPool
		if c.Borrower, err = client.ParseAccount(b.Borrower); err != nil {
			return nil, s.problem(ledger.Malformed, "borrower: "+err.Error())
		}
		if b.MaxFee == "" {
			b.MaxFee = "0"
		}
	}
	c.MaxFee = g.Amount(feePool, b.MaxFee)
	if c.Amount = g.Amount(b.Pool, b.Amount); b.Amount == "max" {
		c.Amount = g.MaxAmount(b.Pool)
	}
	text := g.Render(c)
	if again, err := g.Parse(text); again == nil {
		return nil, s.problem(ledger.Malformed, err.Error())
	}
	out := client.Text{Text: text, ID: ledger.RequestID(text).String()}
	if b.Scheme != "" {
		if !v.TakesScheme(b.Scheme, signer.Namespace) {
			return nil, s.problem(ledger.SchemeUnsupported, b.Scheme)
		}
		if b.Scheme == address.SchemeEIP712 {
			data, ok := g.TypedData(signer, c)
			if !ok {
				return nil, s.problem(ledger.SchemeUnsupported, b.Scheme+" on "+signer.Chain())
			}
			out.TypedData = string(data)
		}
	}
	out.AsOf = v.Height
	return &reply[client.Text]{out}, nil
}

type previewInput struct{ Body client.PreviewRequest }

// previewRequest runs the ledger's own code on a copy that is thrown away.
func (s *server) previewRequest(_ context.Context, in *previewInput) (*reply[client.Preview], error) {
	v := s.view()
	c, err := v.Grammar().Parse(in.Body.Text)
	if c == nil {
		return nil, s.problem(ledger.Malformed, err.Error())
	}
	state, code := v.Preview(in.Body.Text)
	after := view{state}
	out := client.Preview{Code: string(code)}
	out.AsOf = v.Height
	account := accountID(c)
	if acc, ok := v.account(account); ok {
		h := v.health(acc)
		out.Before = &h
	}
	if code != ledger.OK {
		out.Limit, out.Found, _ = v.numbers(c, code)
	} else if acc, ok := after.account(account); ok {
		h := after.health(acc)
		out.After = &h
	}
	if out.PoolBefore = v.figures(c.Pool); out.PoolBefore != nil {
		out.Pool = c.Pool
		if code == ledger.OK {
			out.PoolAfter = after.figures(c.Pool)
		}
	}
	if o, ok := after.newest(v); ok {
		out.Gross = o.Gross.String()
		if fee, _, code := v.quote(o.Asset, o.To, o.Gross); code == ledger.OK {
			out.Fee, out.Net = fee.String(), minus(o.Gross, fee).String()
		}
	}
	return &reply[client.Preview]{out}, nil
}

// refusal is a problem with the numbers that are known for it.
func (s *server) refusal(v view, c *address.Command, code ledger.Code, about string) *client.Problem {
	p := s.problem(code, about)
	var ahead bool
	p.Limit, p.Found, ahead = v.numbers(c, code)
	p.Retryable = p.Retryable || ahead
	if p.Pool = c.Pool; code == ledger.SupplyCap {
		p.Pool = c.CollateralPool
	}
	return p
}

func accountID(c *address.Command) ledger.AccountID { return hex.EncodeToString(c.Account[:]) }

func writeProblem(w http.ResponseWriter, p *client.Problem) {
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) // the caller has gone if this fails
}
