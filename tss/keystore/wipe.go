package keystore

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// Proof says under what certificate a KeyShare is wiped. A ledger without one
// may be a traitor leader's private branch, and two branches could wipe both
// generations (spec: signing §11). Whether the certificate allows it is the
// caller's to decide, before; here it is kept, for whoever asks later.
type Proof struct {
	Height uint64   `cbor:"1,keyasint"` // that the certificate covers
	Head   [32]byte `cbor:"2,keyasint"` // certified there
	Reason string   `cbor:"3,keyasint"` // in words
}

const maxReason = 256

// Wipe destroys KeyShares and the joined lines of their sessions: the data key
// is overwritten in place, synced and removed, the records are deleted, and
// Badger drops what it can. An active share is refused: its epoch is in force.
// Wiping again is harmless; a crash in between is made good by the next Open.
func (k *Keystore) Wipe(ids []ShareID, p Proof) error {
	if p.Height == 0 || p.Head == [32]byte{} || p.Reason == "" || len(p.Reason) > maxReason {
		return errors.New("wipe key shares: no certificate")
	}
	k.shareMu.Lock()
	defer k.shareMu.Unlock()
	for _, id := range ids {
		state, err := k.stateOf(id)
		if err == nil && state == Active {
			err = errors.New("it is active")
		}
		if err != nil {
			return fmt.Errorf("wipe key share %s: %w", id, err)
		}
	}
	for _, id := range ids {
		if state, err := k.stateOf(id); err != nil {
			return fmt.Errorf("wipe key share %s: %w", id, err)
		} else if state == Wiped {
			continue
		}
		// The tombstone first: from here on nobody uses the share, and the next
		// Open goes on where a crash stops us.
		key := shareKey(id, Wiped)
		ad := k.shareAD(id, Wiped)
		if err := k.update(func(txn *badger.Txn) error { return k.insert(txn, key, k.fileKey, ad, encode(p)) }); err != nil {
			return fmt.Errorf("wipe key share %s: %w", id, err)
		}
	}
	if err := k.destroy(ids); err != nil {
		return fmt.Errorf("wipe key shares: %w", err)
	}
	return nil
}

// WipedUnder returns the proof under which a share was wiped.
func (k *Keystore) WipedUnder(id ShareID) (Proof, error) {
	var p Proof
	err := k.view(func(txn *badger.Txn) error {
		b, err := k.read(txn, shareKey(id, Wiped), k.fileKey, k.shareAD(id, Wiped))
		if err != nil {
			return err
		}
		return decode(b, &p)
	})
	if err != nil {
		return p, fmt.Errorf("wiped key share %s: %w", id, err)
	}
	return p, nil
}

// finishWipes does what is left of every wipe on record.
func (k *Keystore) finishWipes() error {
	states := map[ShareID]map[ShareState]bool{}
	err := k.keys(prefixShare, func(key recordKey) error {
		id, s, err := parseShareKey(key)
		if err != nil {
			return nil // Shares reports it
		}
		if states[id] == nil {
			states[id] = map[ShareState]bool{}
		}
		states[id][s] = true
		return nil
	})
	if err != nil {
		return err
	}
	var ids []ShareID
	for id, s := range states {
		if s[Wiped] && len(s) > 1 {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return k.destroy(ids)
}

// destroy removes all of the shares but their tombstones. The records go last:
// while they are there, finishWipes knows that it is not done.
func (k *Keystore) destroy(ids []ShareID) error {
	gone := map[ShareID]bool{}
	for _, id := range ids {
		if err := k.destroyDataKey(id); err != nil {
			return err
		}
		gone[id] = true
	}
	lines, err := k.JoinedLines()
	if err != nil {
		return err
	}
	var keys []recordKey
	for _, l := range lines {
		if gone[l.Uses] {
			keys = append(keys, append(recordKey{prefixJoined}, l.Session[:]...))
		}
	}
	for _, id := range ids {
		for _, s := range []ShareState{Staged, Active, Retired} {
			keys = append(keys, shareKey(id, s))
		}
	}
	const inOneTransaction = 500 // Badger bounds a transaction by its memtable
	for len(keys) > 0 {
		n := min(len(keys), inOneTransaction)
		err := k.update(func(txn *badger.Txn) error {
			for _, key := range keys[:n] {
				if err := txn.Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	for {
		if err := k.db.RunValueLogGC(0.5); err != nil {
			if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
				return nil
			}
			return fmt.Errorf("collect garbage: %w", err)
		}
	}
}
