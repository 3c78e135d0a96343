package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A state as a stream: frames of a length and CBOR. The first is the state
// without its accounts, each later one chunkRows accounts or what is left of
// them, and a length of 0 ends it. Equal states are equal bytes, and neither
// side holds all accounts a second time.

const (
	chunkRows = 1024
	// maxChunk is far above 1024 accounts that keep 16 answers each.
	maxChunk = 8 << 20
	// maxFrame bounds what is read as everything but accounts.
	maxFrame = 1 << 30
)

// Encode writes the state. s must not change meanwhile.
func (s *State) Encode(w io.Writer) error {
	rest := *s
	rest.Accounts = Accounts{}
	if err := writeFrame(w, Marshal(&rest)); err != nil {
		return err
	}
	chunk := make([]packedRow, 0, chunkRows)
	for r := range s.Accounts.packedRows() {
		if chunk = append(chunk, r); len(chunk) == chunkRows {
			if err := writeFrame(w, Marshal(chunk)); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	if len(chunk) > 0 {
		if err := writeFrame(w, Marshal(chunk)); err != nil {
			return err
		}
	}
	return writeFrame(w, nil)
}

// ReadState reads what Encode wrote, and no byte further. It refuses what is
// not the one form of a state that hangs together.
func ReadState(r io.Reader) (*State, error) {
	s, err := readState(r)
	if err == nil {
		err = s.admit()
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return s, nil
}

func readState(r io.Reader) (*State, error) {
	b, err := readFrame(r, maxFrame)
	if err != nil {
		return nil, err
	}
	s := new(State)
	if err := Unmarshal(b, s); err != nil {
		return nil, err
	}
	if s.Accounts.len() > 0 {
		return nil, errors.New("accounts in the first frame")
	}
	l := newAccountLoading(&s.Accounts)
	for last := false; ; {
		b, err := readFrame(r, maxChunk)
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			l.done()
			return s, nil
		}
		var chunk []packedRow
		if err := Unmarshal(b, &chunk); err != nil {
			return nil, err
		}
		if last || len(chunk) == 0 || len(chunk) > chunkRows {
			return nil, fmt.Errorf("%w: a frame of %d accounts", ErrNotCanonical, len(chunk))
		}
		last = len(chunk) < chunkRows
		if err := l.add(chunk); err != nil {
			return nil, err
		}
	}
}

func writeFrame(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

func readFrame(r io.Reader, most uint32) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, fmt.Errorf("length of a frame: %w", err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > most {
		return nil, fmt.Errorf("a frame of %d bytes, at most %d", n, most)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n))) // takes no room for bytes that are only promised
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("a frame of %d bytes: %w", n, err)
	}
	return b, nil
}
