package rpcproxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Act is what becomes of one call. The zero Act passes it unchanged.
type Act struct {
	hold   <-chan struct{}                                      // wait for it first, or for the client to give up
	refuse bool                                                 // the node never hears of it
	call   func(*Call)                                          // what the node is asked instead
	answer func(Call, Answer, int) (_ Answer, status int)       // what it is made to have said
	write  func(w http.ResponseWriter, status int, body []byte) // how that reaches the client
}

// Pass lets a call through.
func Pass() Act { return Act{} }

// Hold keeps a call until the channel closes: a node that is slow, for as long
// as a test wants. The call reaches the node afterwards.
func Hold(until <-chan struct{}) Act { return Act{hold: until} }

// Delay keeps a call for a time.
func Delay(d time.Duration) Act {
	return Act{call: func(*Call) { time.Sleep(d) }}
}

// Refuse closes the connection; the node never hears of the call.
func Refuse() Act { return Act{refuse: true, write: drop} }

// DropAfter closes the connection after the node accepted the call: nobody
// knows what became of it (spec: outflows §10, fault 7).
func DropAfter() Act { return Act{write: drop} }

func drop(http.ResponseWriter, int, []byte) { panic(http.ErrAbortHandler) }

// Status answers with an HTTP status and no JSON; the node never hears of it.
func Status(code int) Act {
	return Act{refuse: true, write: func(w http.ResponseWriter, _ int, _ []byte) { http.Error(w, http.StatusText(code), code) }}
}

// StatusAfter is Status for a call that the node accepted.
func StatusAfter(code int) Act {
	act := Status(code)
	act.refuse = false
	return act
}

// Error answers with a JSON-RPC error as Core sends it, with status 500; the
// node never hears of the call.
func Error(code int, message string) Act {
	act := ErrorAfter(code, message)
	act.refuse = true
	return act
}

// ErrorAfter is Error for a call that the node accepted.
func ErrorAfter(code int, message string) Act {
	text, err := json.Marshal(map[string]any{"code": code, "message": message})
	if err != nil {
		panic(err) // a number and a string
	}
	return Act{answer: func(_ Call, a Answer, _ int) (Answer, int) {
		a.Result, a.Error = json.RawMessage("null"), text
		return a, http.StatusInternalServerError
	}}
}

// Garbage answers with bytes that are no JSON.
func Garbage() Act {
	return Act{refuse: true, write: func(w http.ResponseWriter, _ int, _ []byte) { plain(w, http.StatusOK, []byte("\x00\xff<html>{")) }}
}

// Truncate sends the first half of the true answer and closes.
func Truncate() Act {
	return Act{write: func(w http.ResponseWriter, status int, body []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(status)
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}}
}

// Huge answers with an endless-looking string of n bytes.
func Huge(n int) Act {
	return Act{refuse: true, write: func(w http.ResponseWriter, _ int, _ []byte) {
		_, _ = w.Write([]byte(`{"result":"`))
		for chunk := bytes.Repeat([]byte("0"), 1<<16); n > 0; n -= len(chunk) {
			if _, err := w.Write(chunk[:min(n, len(chunk))]); err != nil {
				return // the client had enough
			}
		}
		_, _ = w.Write([]byte(`"}`))
	}}
}

// Drip sends the true answer a byte at a time, with a pause between.
func Drip(pause time.Duration) Act {
	return Act{write: func(w http.ResponseWriter, status int, body []byte) {
		w.WriteHeader(status)
		for i := range body {
			if _, err := w.Write(body[i : i+1]); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}}
}

// Result answers with a result of the script's own.
func Result(result any) Act {
	text, err := json.Marshal(result)
	return Act{refuse: true, answer: func(_ Call, a Answer, _ int) (Answer, int) {
		if err != nil {
			panic(fmt.Sprintf("rpcproxy: result: %v", err))
		}
		a.Result, a.Error = text, nil
		return a, http.StatusOK
	}}
}

// Change forwards a call and changes the result.
func Change(change func(result json.RawMessage) json.RawMessage) Act {
	return Act{answer: func(_ Call, a Answer, status int) (Answer, int) {
		a.Result = change(slices.Clone(a.Result))
		return a, status
	}}
}

// Instead asks the node about something else: the answer is true, but not to
// what was asked.
func Instead(params ...any) Act {
	text, err := json.Marshal(params)
	return Act{call: func(c *Call) {
		if err != nil {
			panic(fmt.Sprintf("rpcproxy: parameters: %v", err))
		}
		c.Params = text
	}}
}

// Stale gives every call the node's first answer to it, for ever: a node that
// stopped. The same act scripted again later still has its old answers.
func Stale() Act {
	var mu sync.Mutex
	first := map[string]Answer{}
	return Act{answer: func(c Call, a Answer, status int) (Answer, int) {
		mu.Lock()
		defer mu.Unlock()
		key := c.Method + string(c.Params)
		old, ok := first[key]
		if !ok {
			first[key] = a
			return a, status
		}
		old.ID = c.ID
		return old, status
	}}
}
