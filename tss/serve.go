package tss

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/coffer-network/coffer/tss/child"
	"github.com/coffer-network/coffer/tss/preparams"
)

// A program that holds this package is its own child: started as
// "coffer tss-child" it serves one session and ends, before main begins.
//
// Why here and not in a command: a child must not pay for what a node sets up
// before main, and a test binary that runs itself as a child must never run its
// tests as one.
func init() {
	if len(os.Args) < 2 || os.Args[1] != child.Argument {
		return
	}
	if err := child.Main(serve); err != nil {
		fmt.Fprintln(os.Stderr, "coffer tss-child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve is the child's side of remote: one engine, one order at a time. Errors
// are those of the pipe.
func serve(next func() []byte, send func([]byte) error) error {
	say := func(r reply) error { return send(encode(r)) }
	raw := next()
	var j job
	if err := decode(raw, &j); err != nil {
		return errors.New("job does not decode")
	}
	clear(raw)
	if j.Prepare {
		return servePreParams(say)
	}
	parties := len(j.Request.members())
	e, err := j.engine()
	j.wipe()
	if err != nil {
		return say(reply{What: saidEnd, Failure: failureOf(err)})
	}
	outs, err := e.start()
	for {
		if err := answer(say, e, outs, err); err != nil {
			return err
		}
		var o feedOrder
		if err := decode(next(), &o); err != nil {
			return fmt.Errorf("order: %w", err)
		}
		r := rulesByCode[o.Code]
		if r == nil || !e.protocol.has(r) || o.From < 0 || o.From >= parties || o.From == e.self {
			return fmt.Errorf("order names message %d of party %d", o.Code, o.From)
		}
		// If the library takes this process down, the parent knows with what.
		if err := say(reply{What: saidFeeding, From: o.From, Code: o.Code}); err != nil {
			return err
		}
		outs, err = e.feed(o.From, r, o.Payload)
	}
}

func answer(say func(reply) error, e *engine, outs []outgoing, err error) error {
	end := reply{What: saidEnd, Failure: failureOf(err)}
	if err == nil {
		for _, o := range outs {
			if err := say(reply{What: saidOut, Code: o.rule.code, To: o.to, Payload: o.payload}); err != nil {
				return err
			}
		}
		if v := e.collect(); v != nil {
			if end.Result, err = encodeResult(v); err != nil {
				end.Failure = failureOf(err)
			}
		}
	}
	return say(end)
}

func servePreParams(say func(reply) error) error {
	pp, err := preparams.Generate(context.Background(), 1, nil)
	if err != nil {
		return say(reply{What: saidEnd, Failure: failureOf(err)})
	}
	b, err := json.Marshal(pp)
	if err != nil {
		err = errors.New("pre-parameters do not encode")
	}
	return say(reply{What: saidEnd, Result: b, Failure: failureOf(err)})
}
