package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// maxRequestBytes: the longest request names an address and an amount.
	maxRequestBytes = 4096
	// readTimeout: a client on loopback that takes longer is stuck.
	readTimeout = 10 * time.Second
)

// loopbackServer is an HTTP server for the user's own machine.
type loopbackServer struct {
	http *http.Server
	url  string
	done chan struct{}
}

func serveLoopback(port int, handler http.Handler) (*loopbackServer, error) {
	l, err := net.Listen("tcp4", Loopback(port))
	if err != nil {
		return nil, err
	}
	s := &loopbackServer{url: "http://" + l.Addr().String(), done: make(chan struct{}), http: &http.Server{
		Handler: ownHost(handler), ReadTimeout: readTimeout, MaxHeaderBytes: 4 * maxRequestBytes,
	}}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends by stop alone: a listener on loopback does not fail
	}()
	return s, nil
}

// ownHost refuses a page in the user's browser that reaches loopback under a name of its own (DNS rebinding).
func ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil || (host != loopback && host != "localhost") {
			writeProblem(w, http.StatusForbidden, errors.New("only loopback names are served"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *loopbackServer) stop(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop the server at %s: %w", s.url, err), s.http.Close())
	}
	<-s.done
	return nil
}

// internalError marks what is not the caller's mistake.
type internalError struct{ err error }

func (e *internalError) Error() string { return e.err.Error() }
func (e *internalError) Unwrap() error { return e.err }

func statusOf(err error) int {
	var internal *internalError
	if errors.As(err, &internal) {
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

type problem struct {
	Error string `json:"error"`
}

func writeProblem(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, problem{err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client is gone
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if d.More() {
		return errors.New("read the request: more than one JSON document")
	}
	return nil
}
