package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api"
	"github.com/coffer-network/coffer/node/api/client"
)

var _ api.Controller = (*Node)(nil)

// Say has a word of this member ordered and waits until this replica applied it.
func (n *Node) Say(ctx context.Context, kind ledger.Kind, body any) (api.Outcome, error) {
	r, err := n.say(ctx, statement{kind, body})
	return n.outcome(r, err)
}

// listenControl listens on dir's control socket, which its owner alone can open
// from the first moment: it is made in a directory that is his, given its mode,
// and moved. A socket that an earlier life left is replaced; the keystore is
// open, so no other node runs here.
func listenControl(dir string) (net.Listener, error) {
	name := filepath.Join(dir, client.ControlSocket)
	old, err := os.Lstat(name)
	switch {
	case err == nil && old.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is in the way: it is no socket", name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".c") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	l, err := net.Listen("unix", filepath.Join(private, "s"))
	if err != nil {
		return nil, fmt.Errorf("listen in %s, a path that may be too long for a socket: %w", dir, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would unlink the old name
	err = os.Chmod(filepath.Join(private, "s"), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(private, "s"), name)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
