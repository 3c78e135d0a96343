package testnet

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// loopback is the only interface the testnet uses.
const loopback = "127.0.0.1"

// PortWish asks for one TCP port on loopback.
type PortWish struct {
	Purpose string // for the error: "Bitcoin RPC"
	Flag    string // the flag that chooses it: "--bitcoin-rpc-port"
	Number  int    // 0: any free port
}

// PickPort returns the wished port if it is free, or a free one that the kernel will not hand out again for
// about a minute, which is time enough for a child to bind it.
func PickPort(wish PortWish) (int, error) {
	l, err := net.Listen("tcp4", Loopback(wish.Number))
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, fmt.Errorf("port %d (%s) is in use: stop the program that holds it, or choose another with %s", wish.Number, wish.Purpose, wish.Flag)
	}
	if err != nil {
		return 0, fmt.Errorf("take port %d for %s: %w", wish.Number, wish.Purpose, err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if wish.Number != 0 {
		return port, l.Close()
	}
	if err := reserve(l); err != nil {
		return 0, fmt.Errorf("reserve port %d for %s: %w", port, wish.Purpose, err)
	}
	return port, nil
}

// reserve closes the listener so that its port stays in TIME_WAIT: the kernel then gives it to nobody who asks
// for any port, while a server that names it may bind it (SO_REUSEADDR, which Go and btcd set).
//
// Why not keep the listener open until the child starts: the child could not bind.
func reserve(l net.Listener) error {
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	return server.Close() // the side that closes first keeps the TIME_WAIT
}

// Loopback is the address of a port on loopback.
func Loopback(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
