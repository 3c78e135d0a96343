package keystore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// ShareID names one generation of a key: the try of the keygen or resharing
// that made it for an epoch.
type ShareID struct {
	Key   string `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
	Try   uint64 `cbor:"3,keyasint"`
}

func (id ShareID) String() string {
	return fmt.Sprintf("%s epoch %d try %d", id.Key, id.Epoch, id.Try)
}

// ShareState is how far a KeyShare has come. It only ever grows:
//
//	(none) ── Stage ──► Staged ── Activate ──► Active ── Retire ──► Retired
//	                      └────────────── Wipe ──► Wiped ◄── Wipe ─────┘
//
// Each arrow inserts a record of its own; nothing is replaced. Wiped keeps what
// was said for it and none of the share.
type ShareState uint8

const (
	Staged  ShareState = 1 // made, read back and decrypted; signs test signatures only
	Active  ShareState = 2 // its epoch came into force
	Retired ShareState = 3 // a newer epoch is in force; still signs what names this one
	Wiped   ShareState = 4 // its data key is destroyed
)

func (s ShareState) String() string {
	switch s {
	case Staged:
		return "staged"
	case Active:
		return "active"
	case Retired:
		return "retired"
	case Wiped:
		return "wiped"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// KeyShare is one member's part of a key. It prints as "[key share]" whatever
// the verb, so that no log line or error can carry it.
type KeyShare struct {
	ID         ShareID    `cbor:"1,keyasint"`
	Curve      string     `cbor:"2,keyasint"` // "secp256k1" or "ed25519"
	M          int        `cbor:"3,keyasint"` // SigningThreshold
	Parties    [][32]byte `cbor:"4,keyasint"` // holders, in order of their party keys
	Pub        []byte     `cbor:"5,keyasint"` // compressed, as on the chains
	Transcript [32]byte   `cbor:"6,keyasint"` // equal for every honest party of the session that made it
	Secret     []byte     `cbor:"7,keyasint"` // opaque here
}

const redacted = "[key share]"

// Format prints the same for every verb.
func (KeyShare) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue keeps the share out of structured logs.
func (KeyShare) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON keeps the share out of JSON.
func (KeyShare) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Wipe overwrites the secret in memory, as well as a garbage-collected language
// can.
func (s *KeyShare) Wipe() { clear(s.Secret) }

// Digest identifies the share without revealing it.
func (s KeyShare) Digest() [32]byte { return sha256.Sum256(encode(s)) }

// ShareInfo says what a KeyShare is without its secret.
type ShareInfo struct {
	ID         ShareID
	State      ShareState
	Curve      string
	M          int
	Parties    [][32]byte
	Pub        []byte
	Transcript [32]byte
	Err        error // ErrCorrupt: the share is there and unusable, report key-missing
}

// StageKeyShare stores a fresh share as staged, reads it back and decrypts it
// (spec: signing §6, acceptance 2). Staging the same bytes again is harmless;
// staging others under the same name panics, since it would destroy the only
// copy of a share.
func (k *Keystore) StageKeyShare(s KeyShare) error {
	if s.ID.Key == "" || s.Curve == "" || s.M < 1 || len(s.Pub) == 0 || len(s.Secret) == 0 {
		return errors.New("stage key share: incomplete share")
	}
	if len(s.ID.Key) > MaxName {
		return fmt.Errorf("stage key share: %w", ErrTooLarge)
	}
	k.shareMu.Lock()
	defer k.shareMu.Unlock()
	if wiped, err := k.has(shareKey(s.ID, Wiped)); err != nil || wiped {
		return fmt.Errorf("stage key share %s: %w", s.ID, errors.Join(err, ErrWiped))
	}
	body := encode(s)
	defer clear(body)
	if err := k.insertShare(s.ID, Staged, body); err != nil {
		return fmt.Errorf("stage key share %s: %w", s.ID, err)
	}
	back, err := k.readShare(s.ID, Staged)
	if err != nil {
		return fmt.Errorf("read back key share %s: %w", s.ID, err)
	}
	defer clear(back)
	if !bytes.Equal(back, body) {
		panic("keystore: key share " + s.ID.String() + " read back differs: it would overwrite another share")
	}
	return nil
}

// KeyShare returns a share and its state: ErrNotFound if the keystore never
// had it, ErrWiped if it was wiped, ErrCorrupt if it cannot be read any more. The
// caller owns the copy and wipes it.
func (k *Keystore) KeyShare(id ShareID) (KeyShare, ShareState, error) {
	state, err := k.stateOf(id)
	if err != nil {
		return KeyShare{}, 0, fmt.Errorf("key share %s: %w", id, err)
	}
	if state == Wiped {
		return KeyShare{}, state, fmt.Errorf("key share %s: %w", id, ErrWiped)
	}
	body, err := k.readShare(id, state)
	if err != nil {
		return KeyShare{}, state, fmt.Errorf("key share %s: %w", id, err)
	}
	defer clear(body)
	var s KeyShare
	if err := decode(body, &s); err != nil || s.ID != id {
		return KeyShare{}, state, fmt.Errorf("key share %s: %w", id, &CorruptError{Record: shareKey(id, state).name(), Err: errors.New("does not decode")})
	}
	return s, state, nil
}

// Activate marks the staged share of an epoch that came into force. Doing it
// again is harmless. Only one try of an epoch can be active.
func (k *Keystore) Activate(id ShareID) error {
	k.shareMu.Lock()
	defer k.shareMu.Unlock()
	state, err := k.stateOf(id)
	if err != nil {
		return fmt.Errorf("activate key share %s: %w", id, err)
	}
	switch state {
	case Wiped:
		return fmt.Errorf("activate key share %s: %w", id, ErrWiped)
	case Active, Retired:
		return nil
	}
	ids, err := k.shareIDs()
	if err != nil {
		return fmt.Errorf("activate key share %s: %w", id, err)
	}
	for other, s := range ids {
		if other.Key == id.Key && other.Epoch == id.Epoch && other != id && (s == Active || s == Retired) {
			return fmt.Errorf("activate key share %s: try %d of the epoch is %s already", id, other.Try, s)
		}
	}
	return k.advance(id, Staged, Active)
}

// Retire marks the active share of an epoch that another one followed. It goes
// on signing what names its epoch.
func (k *Keystore) Retire(id ShareID) error {
	k.shareMu.Lock()
	defer k.shareMu.Unlock()
	state, err := k.stateOf(id)
	if err != nil {
		return fmt.Errorf("retire key share %s: %w", id, err)
	}
	switch state {
	case Staged:
		return fmt.Errorf("retire key share %s: it was never active", id)
	case Retired:
		return nil
	case Wiped:
		return fmt.Errorf("retire key share %s: %w", id, ErrWiped)
	}
	return k.advance(id, Active, Retired)
}

func (k *Keystore) advance(id ShareID, from, to ShareState) error {
	body, err := k.readShare(id, from)
	if err != nil {
		return fmt.Errorf("make key share %s %s: %w", id, to, err)
	}
	defer clear(body)
	if err := k.insertShare(id, to, body); err != nil {
		return fmt.Errorf("make key share %s %s: %w", id, to, err)
	}
	return nil
}

// Shares lists every share, sorted by key, epoch and try. A share that cannot
// be read is listed with its error: the node lives on without it.
func (k *Keystore) Shares() ([]ShareInfo, error) {
	ids, err := k.shareIDs()
	if err != nil {
		return nil, fmt.Errorf("list key shares: %w", err)
	}
	out := make([]ShareInfo, 0, len(ids))
	for id, state := range ids {
		info := ShareInfo{ID: id, State: state}
		if state == Wiped {
			out = append(out, info)
			continue
		}
		s, _, err := k.KeyShare(id)
		if err != nil {
			info.Err = err
		} else {
			info.Curve, info.M, info.Parties, info.Pub, info.Transcript = s.Curve, s.M, s.Parties, s.Pub, s.Transcript
			s.Wipe()
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b ShareInfo) int {
		return bytes.Compare(shareKey(a.ID, 0), shareKey(b.ID, 0))
	})
	return out, nil
}

// stateOf returns the highest state recorded for id.
func (k *Keystore) stateOf(id ShareID) (ShareState, error) {
	for s := Wiped; s >= Staged; s-- {
		ok, err := k.has(shareKey(id, s))
		if err != nil {
			return 0, err
		}
		if ok {
			return s, nil
		}
	}
	return 0, ErrNotFound
}

func (k *Keystore) shareIDs() (map[ShareID]ShareState, error) {
	ids := map[ShareID]ShareState{}
	err := k.keys(prefixShare, func(key recordKey) error {
		id, state, err := parseShareKey(key)
		if err != nil {
			return err
		}
		ids[id] = max(ids[id], state)
		return nil
	})
	return ids, err
}

// insertShare writes the record of one state under the share's own data key,
// which is made with the first of them. Destroying that data key is what wipes a
// share, whatever copies of its records a disk keeps.
func (k *Keystore) insertShare(id ShareID, state ShareState, body []byte) error {
	return k.update(func(txn *badger.Txn) error {
		dk, err := k.dataKey(id, true)
		if err != nil {
			return err
		}
		defer clear(dk)
		return k.insert(txn, shareKey(id, state), dk, k.shareAD(id, state), body)
	})
}

func (k *Keystore) readShare(id ShareID, state ShareState) ([]byte, error) {
	var body []byte
	err := k.view(func(txn *badger.Txn) error {
		dk, err := k.dataKey(id, false)
		if err != nil {
			return err
		}
		defer clear(dk)
		body, err = k.read(txn, shareKey(id, state), dk, k.shareAD(id, state))
		return err
	})
	return body, err
}

func (k *Keystore) shareAD(id ShareID, state ShareState) []byte {
	return k.recordAD(prefixShare, id, state, nil)
}

// ShareStates says how far each share has come, without opening any.
func (k *Keystore) ShareStates() (map[ShareID]ShareState, error) {
	ids, err := k.shareIDs()
	if err != nil {
		return nil, fmt.Errorf("list key shares: %w", err)
	}
	return ids, nil
}
