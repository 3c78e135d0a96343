package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// JoinedLine is one line of the joined set.
type JoinedLine struct {
	Session [32]byte `cbor:"1,keyasint"`
	Uses    ShareID  `cbor:"2,keyasint"`
}

// JoinedLines returns the whole joined set, in order of sessions.
func (k *Keystore) JoinedLines() ([]JoinedLine, error) {
	var sessions [][32]byte
	err := k.keys(prefixJoined, func(key recordKey) error {
		if len(key) != 33 {
			return &CorruptError{Record: key.name(), Err: errors.New("malformed name")}
		}
		sessions = append(sessions, [32]byte(key[1:]))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read joined set: %w", err)
	}
	lines := make([]JoinedLine, len(sessions))
	for i, s := range sessions {
		lines[i].Session = s
		b, err := k.get(append(recordKey{prefixJoined}, s[:]...))
		if err != nil {
			continue // a rotten line still says "joined"; it is never pruned
		}
		if decode(b, &lines[i].Uses) != nil {
			lines[i].Uses = ShareID{}
		}
	}
	slices.SortFunc(lines, func(a, b JoinedLine) int { return bytes.Compare(a.Session[:], b.Session[:]) })
	return lines, nil
}

// AddJoined puts lines of a backup into the joined set.
func (k *Keystore) AddJoined(lines []JoinedLine) error {
	const inOneTransaction = 500
	for len(lines) > 0 {
		n := min(len(lines), inOneTransaction)
		err := k.update(func(txn *badger.Txn) error {
			for _, l := range lines[:n] {
				key := append(recordKey{prefixJoined}, l.Session[:]...)
				if err := k.insert(txn, key, k.fileKey, k.plainAD(key), encode(l.Uses)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("restore joined set: %w", err)
		}
		lines = lines[n:]
	}
	return nil
}

// Restored says that this keystore was made from a backup. It forgot the
// sessions it joined and the promises it made since; so none of the KeyShares
// named signs ever again, and its node approves nothing, until an epoch is in
// force whose KeyShares were made here (spec: signing §11).
type Restored struct {
	Epoch  uint64    `cbor:"1,keyasint"` // newest of the backup
	Shares []ShareID `cbor:"2,keyasint"` // that came out of it
	Millis uint64    `cbor:"3,keyasint"` // Unix time of the restore, for people
}

var restoredKey = recordKey{prefixRestored}

func fromBackupKey(id ShareID) recordKey {
	return append(recordKey{prefixRestored}, idKey(prefixShare, id)...)
}

// MarkRestored writes the mark. It belongs before the first KeyShare is staged.
func (k *Keystore) MarkRestored(r Restored) error {
	err := k.update(func(txn *badger.Txn) error {
		for _, id := range r.Shares {
			key := fromBackupKey(id)
			if err := k.insert(txn, key, k.fileKey, k.plainAD(key), []byte{1}); err != nil {
				return err
			}
		}
		return k.insert(txn, restoredKey, k.fileKey, k.plainAD(restoredKey), encode(r))
	})
	if err != nil {
		return fmt.Errorf("mark keystore as restored: %w", err)
	}
	return nil
}

// Restored returns the mark, if there is one. An error means that nobody knows:
// the caller neither signs nor approves.
func (k *Keystore) Restored() (Restored, bool, error) {
	var r Restored
	b, err := k.get(restoredKey)
	if err != nil || b == nil {
		return r, false, err
	}
	if err := decode(b, &r); err != nil {
		return r, false, &CorruptError{Record: restoredKey.name(), Err: err}
	}
	return r, true, nil
}

// EndRestored removes the mark once made, the KeyShares of every key in the
// epoch in force, are active here and none of them came out of a backup. Without
// a mark it does nothing.
func (k *Keystore) EndRestored(made []ShareID) error {
	r, marked, err := k.Restored()
	if err != nil || !marked {
		return err
	}
	if len(made) == 0 {
		return errors.New("end of restore: no key shares named")
	}
	for _, id := range made {
		state, err := k.stateOf(id)
		if err == nil && state != Active {
			err = fmt.Errorf("it is %s", state)
		}
		if err == nil && id.Epoch <= r.Epoch {
			err = errors.New("its epoch is not newer than the backup")
		}
		if was, e := k.CameFromBackup(id); err == nil && (e != nil || was) {
			err = errors.Join(e, errors.New("it came out of the backup"))
		}
		if err != nil {
			return fmt.Errorf("end of restore: key share %s: %w", id, err)
		}
	}
	if err := k.update(func(txn *badger.Txn) error { return txn.Delete(restoredKey) }); err != nil {
		return fmt.Errorf("end of restore: %w", err)
	}
	return nil
}

// CameFromBackup reports whether a KeyShare came out of a backup, ever. Such a
// share deals in a resharing and never signs: the sessions it joined after the
// backup are forgotten.
func (k *Keystore) CameFromBackup(id ShareID) (bool, error) { return k.has(fromBackupKey(id)) }
