package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A state as a stream: frames of a length and CBOR. The first is the state
// without its accounts and addresses, then come the addresses of ours, chunkRows
// in a frame, then the accounts, each frame until they are chunkRows or
// chunkBytes or all, and a length of 0 ends it. Equal states are equal bytes, and
// neither side holds all accounts a second time.

const (
	chunkRows = 1024
	// chunkBytes of packed accounts end a frame, so that no frame is above
	// maxChunk however much accounts hold: a largest one has 16 controllers and
	// answers, a position and a note in each pool, 32 deposits: some 10 kB.
	chunkBytes = 1 << 20
	maxChunk   = 4 << 20
	// maxFrame bounds what is read as everything but accounts and addresses.
	maxFrame = 1 << 30
)

// Encode writes the state. s must not change meanwhile.
func (s *State) Encode(w io.Writer) error {
	rest := *s
	rest.Accounts, rest.Watched = Accounts{}, s.Watched.bare()
	if err := writeFrame(w, Marshal(&rest)); err != nil {
		return err
	}
	chunk, size := make([]packedRow, 0, chunkRows), 0
	for r := range s.Watched.packedRows() {
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
		chunk = chunk[:0]
	}
	for r := range s.Accounts.packedRows() {
		chunk, size = append(chunk, r), size+len(r.Packed)
		if fullChunk(len(chunk), size) {
			if err := writeFrame(w, Marshal(chunk)); err != nil {
				return err
			}
			chunk, size = chunk[:0], 0
		}
	}
	if len(chunk) > 0 {
		if err := writeFrame(w, Marshal(chunk)); err != nil {
			return err
		}
	}
	return writeFrame(w, nil)
}

// fullChunk says that a frame of so many accounts, packed in so many bytes, ends.
func fullChunk(rows, bytes int) bool { return rows == chunkRows || bytes >= chunkBytes }

// ReadState reads what Encode wrote, and no byte further. It refuses what is
// not the one form of a state that hangs together.
//
// A snapshot may be a traitor's. What checking it stumbles over is therefore a
// refusal, not the end of the process.
func ReadState(r io.Reader) (s *State, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("read state: %w: %v", errState, p)
		}
	}()
	s, err = readState(r)
	if err == nil {
		err = s.admit()
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return s, nil
}

var errState = errors.New("a state that hangs together nowhere")

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
	if s.Watched.rows.n > 0 {
		return nil, errors.New("addresses in the first frame")
	}
	if err := s.Watched.fill(func(w *Watches) error { return readWatches(r, w, s.Watched.n) }); err != nil {
		return nil, err
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
		if err := unmarshal(chunkMode, b, &chunk); err != nil {
			return nil, err
		}
		size := 0
		for i, r := range chunk {
			if fullChunk(i, size) {
				return nil, fmt.Errorf("%w: a frame goes on after %d accounts of %d bytes", ErrNotCanonical, i, size)
			}
			size += len(r.Packed)
		}
		if last || len(chunk) == 0 {
			return nil, fmt.Errorf("%w: a frame of %d accounts", ErrNotCanonical, len(chunk))
		}
		last = !fullChunk(len(chunk), size)
		if err := l.add(chunk); err != nil {
			return nil, err
		}
	}
}

// readWatches reads frames until there are n addresses.
func readWatches(r io.Reader, w *Watches, n uint64) error {
	for w.n < n {
		b, err := readFrame(r, maxChunk)
		if err != nil {
			return err
		}
		var chunk []packedRow
		if err := unmarshal(chunkMode, b, &chunk); err != nil {
			return err
		}
		if want := min(n-w.n, chunkRows); uint64(len(chunk)) != want {
			return fmt.Errorf("%w: a frame of %d addresses, want %d", ErrNotCanonical, len(chunk), want)
		}
		if err := w.load(chunk); err != nil {
			return err
		}
	}
	return nil
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
