package child

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxFrame bounds a frame: the largest payload of a session is half of it.
const MaxFrame = 1 << 20

// ErrTooLong: a frame above MaxFrame.
var ErrTooLong = errors.New("frame too long")

// WriteFrame writes four bytes of length, big-endian, and b.
func WriteFrame(w io.Writer, b []byte) error {
	if len(b) > MaxFrame {
		return fmt.Errorf("%w: %d bytes", ErrTooLong, len(b))
	}
	out := make([]byte, 4+len(b))
	defer clear(out) // it may hold a KeyShare
	binary.BigEndian.PutUint32(out, uint32(len(b)))
	copy(out[4:], b)
	_, err := w.Write(out)
	return err
}

// ReadFrame reads one frame; io.EOF between two of them.
func ReadFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLong, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}
