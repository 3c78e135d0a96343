package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

// A backup is one file:
//
//	"coffer-backup/1\n" ‖ 4 bytes, big-endian: length of the header ‖ header, CBOR ‖ age file over the content, CBOR
//
// The header is in clear, so that an operator can tell files apart without the
// passphrase. Nothing vouches for it but the content, which holds its hash.
const (
	backupMagic = "coffer-backup/1\n"
	// maxBackup: ten KeyShares of 50 KiB, and 100 bytes a joined session.
	maxBackup       = 64 << 20
	maxBackupHeader = 64 << 10
)

var (
	// ErrBackupKey: neither passphrase nor identity opens the backup.
	ErrBackupKey = errors.New("backup: wrong passphrase or identity")
	// ErrBackup: the file is damaged, or is no backup.
	ErrBackup = errors.New("backup: damaged")
	// ErrNotHeld: the node does not hold what it would sign with.
	ErrNotHeld = errors.New("backup: this node holds no key share in force")
)

// BackupHeader is what a backup says of itself in clear.
type BackupHeader struct {
	Cluster ledger.Hash     `cbor:"1,keyasint" json:"cluster"` // genesis hash
	Name    string          `cbor:"2,keyasint" json:"name"`    // of the cluster
	Node    ledger.MemberID `cbor:"3,keyasint" json:"node"`
	Epoch   uint64          `cbor:"4,keyasint" json:"epoch"` // in force when it was made, by the node's own ledger
	Keys    []BackupKey     `cbor:"5,keyasint" json:"keys"`
	Millis  uint64          `cbor:"6,keyasint" json:"millis"` // Unix time of its creation
	// Height of the ledger where Epoch came into force. 0: the node had noted no
	// epoch, and the newest KeyShares that were ever in force are taken for those
	// that are.
	Height uint64 `cbor:"7,keyasint" json:"height"`
}

// BackupKey names one KeyShare of a backup.
type BackupKey struct {
	Key   string `cbor:"1,keyasint" json:"key"`
	Curve string `cbor:"2,keyasint" json:"curve"`
	Epoch uint64 `cbor:"3,keyasint" json:"epoch"`
	Try   uint64 `cbor:"4,keyasint" json:"try"`
	M     uint64 `cbor:"5,keyasint" json:"m"` // signers needed
	N     uint64 `cbor:"6,keyasint" json:"n"` // holders
	Pub   []byte `cbor:"7,keyasint" json:"pub"`
	// InForce: the cluster signs with it in the header's epoch; one a key. After a
	// rollback that is not the newest.
	InForce bool `cbor:"8,keyasint" json:"in_force"`
}

func (k BackupKey) id() keystore.ShareID {
	return keystore.ShareID{Key: k.Key, Epoch: k.Epoch, Try: k.Try}
}

// backupContent is the encrypted part.
type backupContent struct {
	Header  ledger.Hash           `cbor:"1,keyasint"` // SHA-256 of the header
	Seed    []byte                `cbor:"2,keyasint"` // of the identity key
	Shares  []keystore.KeyShare   `cbor:"3,keyasint"`
	Joined  []keystore.JoinedLine `cbor:"4,keyasint"`
	Genesis []byte                `cbor:"5,keyasint"`
	Config  []byte                `cbor:"6,keyasint"` // node.toml
	Seq     uint64                `cbor:"7,keyasint"` // attestations numbered so far, at most
}

func (c *backupContent) wipe() {
	clear(c.Seed)
	for i := range c.Shares {
		c.Shares[i].Wipe()
	}
}

// Backup writes the backup of the node in dir to path, which must not exist, for
// whoever holds a recipient's key. The node must not run. The keystore's
// passphrase opens the keystore and nothing else.
func Backup(dir, path string, passphrase []byte, to ...age.Recipient) (BackupHeader, error) {
	g, err := LoadGenesis(dir)
	if err != nil {
		return BackupHeader{}, err
	}
	ks, key, err := openKeystore(dir, passphrase, nil)
	if err != nil {
		return BackupHeader{}, err
	}
	defer ks.Close()
	config, err := os.ReadFile(filepath.Join(dir, "node.toml"))
	if err != nil {
		return BackupHeader{}, fmt.Errorf("read configuration: %w", err)
	}
	return writeBackup(path, ks, key, g, config, to)
}

func writeBackup(path string, ks *keystore.Keystore, key ed25519.PrivateKey, g ledger.Genesis, config []byte, to []age.Recipient) (h BackupHeader, err error) {
	if _, marked, err := ks.Restored(); err != nil || marked {
		// Its joined set has a gap: a backup of a backup would hide that.
		return h, errors.Join(err, errors.New("backup: this keystore was restored and has no key share of its own yet; keep the backup it came from"))
	}
	c := backupContent{Seed: key.Seed(), Genesis: ledger.Marshal(g), Config: config}
	defer c.wipe()
	h = BackupHeader{Cluster: g.Hash(), Name: g.ClusterName(), Node: ledger.MemberID(key.Public().(ed25519.PublicKey)), Millis: uint64(time.Now().UnixMilli())}
	states, err := ks.ShareStates()
	if err != nil {
		return h, fmt.Errorf("backup: %w", err)
	}
	now := readInForce(ks)
	if now.Epoch == 0 {
		now = newestInForce(states)
	}
	if len(now.Shares) == 0 {
		return h, fmt.Errorf("%w (epoch %d)", ErrNotHeld, now.Epoch)
	}
	h.Epoch, h.Height = now.Epoch, now.Height
	for _, id := range planBackup(now, states) {
		signs := slices.Contains(now.Shares, id)
		s, _, err := ks.KeyShare(id)
		switch {
		case err == nil:
			k := backupKey(s)
			k.InForce = signs
			c.Shares, h.Keys = append(c.Shares, s), append(h.Keys, k)
		case signs:
			return h, fmt.Errorf("%w: %w", ErrNotHeld, err)
		}
	}
	if c.Joined, err = ks.JoinedLines(); err != nil {
		return h, fmt.Errorf("backup: %w", err)
	}
	if b, err := ks.Get("attestation-seq"); err != nil {
		return h, fmt.Errorf("backup: %w", err)
	} else if len(b) == 8 {
		c.Seq = binary.BigEndian.Uint64(b)
	}
	header := ledger.Marshal(h)
	c.Header = sha256.Sum256(header)
	var out bytes.Buffer
	out.WriteString(backupMagic)
	out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(header))))
	out.Write(header)
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return h, fmt.Errorf("backup: encrypt: %w", err)
	}
	plain := ledger.Marshal(c)
	defer clear(plain)
	if _, err := w.Write(plain); err != nil {
		return h, fmt.Errorf("backup: encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return h, fmt.Errorf("backup: encrypt: %w", err)
	}
	if out.Len() > maxBackup {
		return h, fmt.Errorf("backup: %d bytes, limit %d", out.Len(), maxBackup)
	}
	return h, writeNewFile(path, out.Bytes())
}

func backupKey(s keystore.KeyShare) BackupKey {
	return BackupKey{Key: s.ID.Key, Curve: s.Curve, Epoch: s.ID.Epoch, Try: s.ID.Try, M: uint64(s.M), N: uint64(len(s.Parties)), Pub: s.Pub}
}

// planBackup picks what a seat that comes back may need: the KeyShares in force;
// of each key the newest before them, which a rollback puts in force again; and
// those that are staged for an epoch to come. One that a rollback left is none of
// these: nothing leads back to it, and m copies of it sign for the same addresses.
func planBackup(now inForce, states map[keystore.ShareID]keystore.ShareState) []keystore.ShareID {
	before := map[string]keystore.ShareID{}
	for _, id := range now.Shares {
		for _, x := range everInForce(states) {
			if x.Key == id.Key && x.Epoch < id.Epoch {
				before[id.Key] = x
			}
		}
	}
	ids := sharesOf(states, func(id keystore.ShareID, s keystore.ShareState) bool {
		return slices.Contains(now.Shares, id) || before[id.Key] == id || s == keystore.Staged && id.Epoch > now.Epoch
	})
	for _, id := range now.Shares {
		if _, held := states[id]; !held {
			ids = append(ids, id) // and whoever reads it says that it is not there
		}
	}
	return ids
}

// newestInForce guesses without a note: wrong after a rollback.
func newestInForce(states map[keystore.ShareID]keystore.ShareState) (f inForce) {
	for _, id := range everInForce(states) { // newer ones later
		f.Epoch = max(f.Epoch, id.Epoch)
		f.Shares = append(slices.DeleteFunc(f.Shares, func(old keystore.ShareID) bool { return old.Key == id.Key }), id)
	}
	return f
}

// everInForce are those of epochs that came into force, in order of key and epoch.
func everInForce(states map[keystore.ShareID]keystore.ShareState) []keystore.ShareID {
	return sharesOf(states, func(_ keystore.ShareID, s keystore.ShareState) bool {
		return s == keystore.Active || s == keystore.Retired
	})
}

// writeNewFile writes a file with mode 0600 under another name first, so that
// what carries path is whole, and syncs it and its directory.
func writeNewFile(path string, b []byte) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write %s: it exists already: %w", path, os.ErrExist)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil { // fails if somebody else made it
		return fmt.Errorf("write backup: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ReadBackupHeader reads what a backup says of itself in clear. Nothing of it is
// checked.
func ReadBackupHeader(path string) (BackupHeader, error) {
	h, _, _, err := splitBackup(path)
	return h, err
}

func splitBackup(path string) (h BackupHeader, header, sealed []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, nil, nil, fmt.Errorf("read backup: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBackup+1))
	if err != nil {
		return h, nil, nil, fmt.Errorf("read backup: %w", err)
	}
	rest, ok := bytes.CutPrefix(b, []byte(backupMagic))
	if !ok || len(b) > maxBackup || len(rest) < 4 {
		return h, nil, nil, fmt.Errorf("%w: %s is no backup of a node", ErrBackup, path)
	}
	n := binary.BigEndian.Uint32(rest)
	if rest = rest[4:]; n > maxBackupHeader || int(n) > len(rest) {
		return h, nil, nil, fmt.Errorf("%w: header of %d bytes", ErrBackup, n)
	}
	if err := ledger.Unmarshal(rest[:n], &h); err != nil {
		return h, nil, nil, fmt.Errorf("%w: header: %w", ErrBackup, err)
	}
	return h, rest[:n], rest[n:], nil
}

// inForce are the KeyShares that the cluster signed with when the backup was made.
func (h BackupHeader) inForce() (ids []keystore.ShareID) {
	for _, k := range h.Keys {
		if k.InForce {
			ids = append(ids, k.id())
		}
	}
	return ids
}

// VerifyBackup decrypts a backup and checks it without starting anything: header
// and content belong together, the identity is the header's, and each KeyShare
// is checked against the public commitments of its epoch.
func VerifyBackup(path string, by ...age.Identity) (BackupHeader, error) {
	h, c, err := openBackup(path, by)
	if err != nil {
		return h, err
	}
	c.wipe()
	return h, nil
}

func openBackup(path string, by []age.Identity) (h BackupHeader, c *backupContent, err error) {
	h, header, sealed, err := splitBackup(path)
	if err != nil {
		return h, nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), by...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return h, nil, ErrBackupKey
		}
		return h, nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxBackup))
	if err != nil {
		return h, nil, fmt.Errorf("%w: %w", ErrBackup, err)
	}
	defer clear(plain)
	c = new(backupContent)
	if err := ledger.Unmarshal(plain, c); err != nil {
		return h, nil, fmt.Errorf("%w: content does not decode", ErrBackup) // the decoder's words might quote it
	}
	if err := c.check(h, header); err != nil {
		c.wipe()
		return h, nil, err
	}
	return h, c, nil
}

func (c *backupContent) check(h BackupHeader, header []byte) error {
	if sha256.Sum256(header) != c.Header {
		return fmt.Errorf("%w: header was changed", ErrBackup)
	}
	if len(c.Seed) != ed25519.SeedSize {
		return fmt.Errorf("%w: identity", ErrBackup)
	}
	key := ed25519.NewKeyFromSeed(c.Seed)
	defer clear(key)
	if ledger.MemberID(key.Public().(ed25519.PublicKey)) != h.Node {
		return fmt.Errorf("%w: identity is not that of %s", ErrBackup, h.Node)
	}
	g, err := c.genesis()
	if err != nil {
		return err
	}
	if g.Hash() != h.Cluster {
		return fmt.Errorf("%w: genesis is of another cluster", ErrBackup)
	}
	if len(c.Shares) == 0 || len(c.Shares) != len(h.Keys) {
		return fmt.Errorf("%w: %d key shares, header names %d", ErrBackup, len(c.Shares), len(h.Keys))
	}
	pubs := map[string][]byte{}
	signs := map[string]bool{}
	for i := range c.Shares {
		s, k := &c.Shares[i], h.Keys[i]
		if k.InForce && signs[k.Key] {
			return fmt.Errorf("%w: two key shares of %s in force", ErrBackup, k.Key)
		}
		if k.InForce {
			signs[k.Key] = true
		}
		k.InForce = false // a KeyShare itself does not know
		if !bytes.Equal(ledger.Marshal(backupKey(*s)), ledger.Marshal(k)) {
			return fmt.Errorf("%w: key share %s is not the header's", ErrBackup, s.ID)
		}
		if p := pubs[s.ID.Key]; p != nil && !bytes.Equal(p, s.Pub) {
			return fmt.Errorf("%w: key %s has two public keys", ErrBackup, s.ID.Key)
		}
		pubs[s.ID.Key] = s.Pub
		if err := tss.Audit(s, h.Cluster, tss.PartyID(h.Node)); err != nil {
			return fmt.Errorf("%w: key share %s: %w", ErrBackup, s.ID, err)
		}
	}
	if len(signs) == 0 {
		return fmt.Errorf("%w: no key share in force", ErrBackup)
	}
	return nil
}

func (c *backupContent) genesis() (ledger.Genesis, error) {
	var g ledger.Genesis
	if err := ledger.Unmarshal(c.Genesis, &g); err != nil {
		return g, fmt.Errorf("%w: genesis: %w", ErrBackup, err)
	}
	if err := g.Validate(); err != nil {
		return g, fmt.Errorf("%w: genesis: %w", ErrBackup, err)
	}
	return g, nil
}

func (c *backupContent) ids() []keystore.ShareID {
	var ids []keystore.ShareID
	for _, s := range c.Shares {
		ids = append(ids, s.ID)
	}
	return slices.Clip(ids)
}
