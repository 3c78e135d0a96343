package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/coffer-network/coffer/ledger"
)

// StrikeConfig is one [[strike]] of node.toml: a command that ends every process that
// applies it, and the members who agreed to take it out (ledger.Strike).
//
// Why not a flag: each start needs it until a snapshot covers the height, and so does
// every node that replays the log later.
type StrikeConfig struct {
	Command    string   `toml:"command"`    // HEIGHT:SHA256
	Signatures []string `toml:"signatures"` // MEMBER:SIGNATURE, in hex, as coffer node strike prints them
}

// maxStrikes and maxStrikeSignatures are more than any cluster lives through, and than any
// committee has members.
const (
	maxStrikes          = 64
	maxStrikeSignatures = 64
)

// signedStrike is one that was read.
type signedStrike struct {
	ledger.Strike
	sigs []ledger.MemberSig
}

func (c Config) strikes(cluster ledger.Hash) ([]signedStrike, error) {
	if len(c.Strikes) > maxStrikes {
		return nil, fmt.Errorf("%d strikes, at most %d", len(c.Strikes), maxStrikes)
	}
	var out []signedStrike
	for _, x := range c.Strikes {
		st, err := ledger.ParseStrike(cluster, x.Command)
		if err != nil {
			return nil, fmt.Errorf("strike: %w", err)
		}
		if len(x.Signatures) > maxStrikeSignatures {
			return nil, fmt.Errorf("strike %s: %d signatures, at most %d", x.Command, len(x.Signatures), maxStrikeSignatures)
		}
		s := signedStrike{Strike: st}
		for _, text := range x.Signatures {
			member, sig, _ := strings.Cut(text, ":")
			var m ledger.MemberSig
			err := m.Member.UnmarshalText([]byte(member))
			b, err1 := hex.DecodeString(sig)
			if err != nil || err1 != nil || len(b) != len(m.Sig) {
				return nil, fmt.Errorf("strike %s: signature %q: want MEMBER:SIGNATURE in hex", x.Command, text)
			}
			m.Sig = [64]byte(b)
			s.sigs = append(s.sigs, m)
		}
		out = append(out, s)
	}
	return out, nil
}

// SignStrike signs with the identity key of the node in dir that its operator wants a
// command struck out, and returns the line for node.toml's signatures. The node must not run.
func SignStrike(dir string, passphrase []byte, command string) (string, error) {
	g, err := LoadGenesis(dir)
	if err != nil {
		return "", err
	}
	st, err := ledger.ParseStrike(g.Hash(), command)
	if err != nil {
		return "", err
	}
	ks, key, err := openKeystore(dir, passphrase, nil)
	if err != nil {
		return "", err
	}
	defer ks.Close()
	s := st.Sign(key)
	clear(key)
	return s.Member.String() + ":" + hex.EncodeToString(s.Sig[:]), nil
}

// struck reports whether a command is not to be executed. One whose signatures do not
// suffice is executed, and said to be.
func (a *app) struck(tx []byte) bool {
	for _, s := range a.strikes {
		if !s.At(a.state, tx) {
			continue
		}
		if err := s.Verify(a.state.Epoch(), s.sigs); err != nil {
			a.log.Error("a strike in node.toml does not count", slog.Any("err", err))
			continue
		}
		a.log.Warn("command struck out by operators", slog.String("command", s.String()))
		return true
	}
	return false
}

// trail remembers on disk, not durably, which command is being applied: what ends the
// process leaves it there, and the next start says which it was. The nil trail forgets.
type trail struct{ f *os.File }

// trailForm is HEIGHT:SHA256 in a fixed width, or blank.
const trailForm = "%20d:%s\n"

// openTrail says which command an earlier life did not finish, if one.
func openTrail(name string) (t *trail, unfinished string, err error) {
	old, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", err
	}
	return &trail{f}, strings.TrimSpace(string(old)), nil
}

// begins and ends bracket the commands of an entry. A failed write costs a hint.
func (t *trail) begins(height uint64, tx []byte) {
	if t != nil {
		_, _ = t.f.WriteAt(fmt.Appendf(nil, trailForm, height, ledger.Hash(sha256.Sum256(tx))), 0)
	}
}

func (t *trail) ends() {
	if t != nil {
		_, _ = t.f.WriteAt(bytes.Repeat([]byte{' '}, len(fmt.Sprintf(trailForm, 0, ledger.Hash{}))), 0)
	}
}

func (t *trail) close() error {
	if t == nil {
		return nil
	}
	return t.f.Close()
}
