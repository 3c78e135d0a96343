package keystore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// What a record is. The first byte of its Badger key, and part of what its
// encryption binds.
const (
	prefixShare     byte = 's'
	prefixDataKey   byte = 'd' // in a file of its own, not in Badger
	prefixJoined    byte = 'j'
	prefixPromise   byte = 'p'
	prefixRaftMark  byte = 'r'
	prefixPreParams byte = 'q'
	prefixSignature byte = 'f'
	prefixNamed     byte = 'n'
	prefixRestored  byte = 'b'
)

// Limits, so that a mistake of a caller is refused by name and never fills the
// disk or the memtable.
const (
	MaxName   = 64        // bytes of a Put name or a key id
	MaxRecord = 512 << 10 // bytes of a record; a KeyShare of ten parties has 50 KiB
	// MaxPreParams in the pool: two per possible resharing and key is what the
	// spec asks for (signing §5).
	MaxPreParams = 64
)

// ErrTooLarge refuses a record or name beyond its limit.
var ErrTooLarge = errors.New("keystore: record or name too large")

// recordKey is a Badger key.
type recordKey []byte

func (k recordKey) kind() byte { return k[0] }

// name says which record it is, for errors; it holds no secret.
func (k recordKey) name() string {
	if k[0] == prefixShare {
		if id, s, err := parseShareKey(k); err == nil {
			return fmt.Sprintf("key share %s (%s)", id, s)
		}
	}
	kinds := map[byte]string{
		prefixShare: "key share", prefixDataKey: "data key", prefixJoined: "joined session",
		prefixPromise: "promise", prefixRaftMark: "raft mark", prefixPreParams: "pre-parameters",
		prefixSignature: "signature", prefixNamed: "value",
		prefixRestored: "mark of a restored keystore",
	}
	return fmt.Sprintf("%s %x", kinds[k[0]], []byte(k[1:]))
}

func shareKey(id ShareID, state ShareState) recordKey {
	return append(idKey(prefixShare, id), byte(state))
}

func dataKeyKey(id ShareID) recordKey { return idKey(prefixDataKey, id) }

func idKey(kind byte, id ShareID) recordKey {
	b := append(recordKey{kind, byte(len(id.Key))}, id.Key...)
	b = binary.BigEndian.AppendUint64(b, id.Epoch)
	return binary.BigEndian.AppendUint64(b, id.Try)
}

func parseShareKey(k recordKey) (ShareID, ShareState, error) {
	if len(k) < 2 || len(k) != 2+int(k[1])+17 {
		return ShareID{}, 0, &CorruptError{Record: fmt.Sprintf("key share record %x", []byte(k)), Err: errors.New("malformed name")}
	}
	n := 2 + int(k[1])
	return ShareID{
		Key:   string(k[2:n]),
		Epoch: binary.BigEndian.Uint64(k[n:]),
		Try:   binary.BigEndian.Uint64(k[n+8:]),
	}, ShareState(k[n+16]), nil
}

// Join records that this node joins a session, before its first message may
// leave: afterwards, restart or not, the answer is ErrJoined. Fresh nonces must
// never meet old messages of the same session (spec: signing §11). uses is the
// KeyShare the session needs: with it the line is pruned, and not before.
func (k *Keystore) Join(session [32]byte, uses ShareID) error {
	key := append(recordKey{prefixJoined}, session[:]...)
	// Of two callers at once, Badger lets one transaction win.
	err := k.update(func(txn *badger.Txn) error {
		if _, err := txn.Get(key); err == nil {
			return ErrJoined
		} else if !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		return k.insert(txn, key, k.fileKey, k.plainAD(key), encode(uses))
	})
	if errors.Is(err, badger.ErrConflict) {
		err = ErrJoined
	}
	if err != nil {
		return fmt.Errorf("join session %x: %w", session[:8], err)
	}
	return nil
}

// Joined reports whether the session is in the joined set.
func (k *Keystore) Joined(session [32]byte) (bool, error) {
	return k.has(append(recordKey{prefixJoined}, session[:]...))
}

// SavePromise replaces the last promise. What it says is the caller's; that it
// is on disk before the approval leaves is ours.
func (k *Keystore) SavePromise(b []byte) error { return k.put(recordKey{prefixPromise}, b) }

// LastPromise returns the last promise, or nil before the first.
func (k *Keystore) LastPromise() ([]byte, error) { return k.get(recordKey{prefixPromise}) }

// SaveRaftMark records raft's term and the last log index this node
// acknowledged, by which a lost raft directory is noticed (spec: consensus §3).
func (k *Keystore) SaveRaftMark(term, index uint64) error {
	b := binary.BigEndian.AppendUint64(nil, term)
	return k.put(recordKey{prefixRaftMark}, binary.BigEndian.AppendUint64(b, index))
}

// RaftMark returns the last mark, zeros before the first.
func (k *Keystore) RaftMark() (term, index uint64, err error) {
	b, err := k.get(recordKey{prefixRaftMark})
	if err != nil || b == nil {
		return 0, 0, err
	}
	if len(b) != 16 {
		return 0, 0, &CorruptError{Record: "raft mark", Err: errors.New("wrong length")}
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), nil
}

// AddPreParams puts one set of pre-parameters into the pool.
func (k *Keystore) AddPreParams(set []byte) error {
	n, err := k.PreParams()
	if err != nil {
		return err
	}
	if n >= MaxPreParams {
		return fmt.Errorf("add pre-parameters: pool holds %d: %w", n, ErrTooLarge)
	}
	id, err := randomBytes(16)
	if err != nil {
		return err
	}
	return k.put(append(recordKey{prefixPreParams}, id...), set)
}

// PreParams counts the pool.
func (k *Keystore) PreParams() (int, error) {
	n := 0
	err := k.keys(prefixPreParams, func(recordKey) error { n++; return nil })
	return n, err
}

// TakePreParams removes one set from the pool and returns it, the removal
// being on disk first: a set serves one KeyShare, then never again. An empty
// pool is ErrNotFound. A set that cannot be read is removed too.
func (k *Keystore) TakePreParams() ([]byte, error) {
	k.poolMu.Lock()
	defer k.poolMu.Unlock()
	var first recordKey
	err := k.keys(prefixPreParams, func(key recordKey) error {
		first = key
		return errStop
	})
	if err != nil {
		return nil, fmt.Errorf("take pre-parameters: %w", err)
	}
	if first == nil {
		return nil, fmt.Errorf("take pre-parameters: pool is empty: %w", ErrNotFound)
	}
	set, readErr := k.get(first)
	if err := k.update(func(txn *badger.Txn) error { return txn.Delete(first) }); err != nil {
		return nil, fmt.Errorf("take pre-parameters: %w", err)
	}
	if readErr != nil {
		return nil, fmt.Errorf("take pre-parameters: %w", readErr)
	}
	return set, nil
}

// SaveSignature stores the finished signature of one input. The first one
// stays: two turns of one attempt may both finish, and either is good.
func (k *Keystore) SaveSignature(batch, attempt uint64, input uint16, sig []byte) error {
	key := signatureKey(batch, attempt, input)
	err := k.update(func(txn *badger.Txn) error {
		if _, err := txn.Get(key); err == nil || !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		return k.insert(txn, key, k.fileKey, k.plainAD(key), sig)
	})
	if err != nil && !errors.Is(err, badger.ErrConflict) {
		return fmt.Errorf("save signature of batch %d attempt %d input %d: %w", batch, attempt, input, err)
	}
	return nil
}

// Signature returns the finished signature of one input, or nil.
func (k *Keystore) Signature(batch, attempt uint64, input uint16) ([]byte, error) {
	return k.get(signatureKey(batch, attempt, input))
}

func signatureKey(batch, attempt uint64, input uint16) recordKey {
	b := binary.BigEndian.AppendUint64(recordKey{prefixSignature}, batch)
	b = binary.BigEndian.AppendUint64(b, attempt)
	return binary.BigEndian.AppendUint16(b, input)
}

// Put replaces a small value under a name of the caller's.
func (k *Keystore) Put(name string, value []byte) error {
	if len(name) > MaxName {
		return fmt.Errorf("put %.16q…: %w", name, ErrTooLarge)
	}
	return k.put(append(recordKey{prefixNamed}, name...), value)
}

// Get returns the value under name, or nil.
func (k *Keystore) Get(name string) ([]byte, error) {
	return k.get(append(recordKey{prefixNamed}, name...))
}

// errStop ends an iteration early.
var errStop = errors.New("stop")

// keys calls f with a copy of each key of one kind.
func (k *Keystore) keys(kind byte, f func(recordKey) error) error {
	err := k.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kind}})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := f(recordKey(it.Item().KeyCopy(nil))); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (k *Keystore) has(key recordKey) (bool, error) {
	err := k.view(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, &CorruptError{Record: key.name(), Err: err}
	}
	return true, nil
}

// put replaces a record that may be replaced.
func (k *Keystore) put(key recordKey, body []byte) error {
	err := k.update(func(txn *badger.Txn) error {
		sealed, err := seal(k.fileKey, k.plainAD(key), body)
		if err != nil {
			return err
		}
		return txn.Set(key, sealed)
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", key.name(), err)
	}
	return nil
}

func (k *Keystore) get(key recordKey) ([]byte, error) {
	var body []byte
	err := k.view(func(txn *badger.Txn) error {
		var err error
		body, err = k.read(txn, key, k.fileKey, k.plainAD(key))
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return body, err
}

// insert writes a record that may never change. The same content again is
// harmless; other content is a mistake of ours, and going on could destroy the
// only copy of a share.
func (k *Keystore) insert(txn *badger.Txn, key recordKey, encryptionKey, ad, body []byte) error {
	old, err := k.read(txn, key, encryptionKey, ad)
	switch {
	case err == nil:
		defer clear(old)
		if !bytes.Equal(old, body) {
			panic("keystore: attempt to overwrite " + key.name())
		}
		return nil
	case !errors.Is(err, ErrNotFound):
		return err
	}
	sealed, err := seal(encryptionKey, ad, body)
	if err != nil {
		return err
	}
	return txn.Set(key, sealed)
}

func (k *Keystore) read(txn *badger.Txn, key recordKey, encryptionKey, ad []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, &CorruptError{Record: key.name(), Err: err}
	}
	sealed, err := item.ValueCopy(nil)
	if err != nil {
		return nil, &CorruptError{Record: key.name(), Err: err}
	}
	body, err := open(encryptionKey, ad, sealed)
	if err != nil {
		return nil, &CorruptError{Record: key.name(), Err: err}
	}
	return body, nil
}
