package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/tss/keystore"
)

// Witness is what another member's node says before a restore.
type Witness struct {
	From    string // for messages
	Cluster string // the cluster's name, with the first half of the genesis hash
	Epoch   uint64 // in force
	Live    bool   // it heard of the identity within the last seconds
}

// RestoreOptions say where to restore to and what the world says.
type RestoreOptions struct {
	Dir        string // must hold no node
	Passphrase []byte // of the new keystore
	// Witnesses are other members' words; none only if the operator states that
	// no node of the cluster answers.
	Witnesses []Witness
	Alone     bool

	testWorkFactor int
}

var (
	// ErrBackupOld: the ledger is past the epoch after the backup's.
	ErrBackupOld = errors.New("restore: the backup is too old")
	// ErrLive: a node with the backup's identity is running.
	ErrLive = errors.New("restore: a node with this identity is live")
)

// Restore makes the node of a backup in an empty directory. Its keystore is
// marked: it neither signs, approves nor votes before the next resharing has
// made it new KeyShares, for which those of the backup may deal.
func Restore(path string, o RestoreOptions, by ...age.Identity) (BackupHeader, error) {
	h, c, err := openBackup(path, by)
	if err != nil {
		return h, err
	}
	defer c.wipe()
	if err := mayRestore(h, o); err != nil {
		return h, err
	}
	g, err := c.genesis()
	if err != nil {
		return h, err
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return h, fmt.Errorf("restore: %w", err)
	}
	if len(entries) > 0 {
		return h, fmt.Errorf("restore: %s is not empty", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return h, fmt.Errorf("restore: %w", err)
	}
	if err := c.restoreKeystore(h, o); err != nil {
		return h, fmt.Errorf("restore: %w", err)
	}
	if err := SaveGenesis(o.Dir, g); err != nil {
		return h, fmt.Errorf("restore: %w", err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "node.toml"), c.Config, 0o600); err != nil {
		return h, fmt.Errorf("restore: %w", err)
	}
	// Last: a directory without it is no node, so a restore cut short is not
	// started by mistake.
	return h, os.WriteFile(filepath.Join(o.Dir, identityFile), []byte(h.Node.String()+"\n"), 0o600)
}

// mayRestore says whether the world allows it (spec: committee §11).
func mayRestore(h BackupHeader, o RestoreOptions) error {
	if len(o.Witnesses) == 0 && !o.Alone {
		return errors.New("restore: no other node was asked")
	}
	for _, w := range o.Witnesses {
		switch {
		case w.Cluster != h.Name:
			return fmt.Errorf("restore: %s is of cluster %s, the backup of %s", w.From, w.Cluster, h.Name)
		case w.Live:
			return fmt.Errorf("%w: %s heard of it seconds ago", ErrLive, w.From)
		case w.Epoch > h.Epoch+1:
			return fmt.Errorf("%w: %s is in epoch %d, the backup of epoch %d; have the seat replaced", ErrBackupOld, w.From, w.Epoch, h.Epoch)
		}
	}
	return nil
}

func (c *backupContent) restoreKeystore(h BackupHeader, o RestoreOptions) error {
	ks, err := keystore.Init(filepath.Join(o.Dir, "keystore"), o.Passphrase, keystore.Options{Node: h.Node, TestWorkFactor: o.testWorkFactor})
	if err != nil {
		return err
	}
	defer ks.Close()
	// The mark stands before there is anything to sign with.
	mark := keystore.Restored{Epoch: h.Epoch, Shares: c.ids(), Millis: uint64(time.Now().UnixMilli())}
	if err := ks.MarkRestored(mark); err != nil {
		return err
	}
	if err := ks.AddJoined(c.Joined); err != nil {
		return err
	}
	now := h.inForce()
	for _, s := range c.Shares {
		if err := ks.StageKeyShare(s); err != nil {
			return err
		}
		switch {
		case slices.Contains(now, s.ID):
			err = ks.Activate(s.ID)
		case s.ID.Epoch <= h.Epoch: // the ones before; a later epoch's stay staged until it is in force
			err = errors.Join(ks.Activate(s.ID), ks.Retire(s.ID))
		}
		if err != nil {
			return err
		}
	}
	if err := ks.Put("attestation-seq", binary.BigEndian.AppendUint64(nil, c.Seq)); err != nil {
		return err
	}
	return ks.Put(identityName, c.Seed)
}

// learner reports whether this node's keystore was restored and has no KeyShares
// of its own yet; why is for people. If nobody knows, it is one.
func (n *Node) learner() (is bool, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.restored != "", n.restored
}

var errLearner = errors.New("restored from a backup: this seat approves and votes again after the next resharing")

// loadRestored reads the keystore's mark.
func (n *Node) loadRestored() error {
	r, marked, err := n.keys.Restored()
	if err != nil {
		return fmt.Errorf("read mark of a restore: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.restored = ""
	if marked {
		n.restored = fmt.Sprintf("restored from a backup of epoch %d on %s: signs, approves and votes again after the next resharing (coffer vote refresh)",
			r.Epoch, time.UnixMilli(int64(r.Millis)).UTC().Format(time.DateOnly))
	}
	return nil
}

// endRestored asks the keystore whether the epoch in force has KeyShares made
// here, and if so is a full member again.
func (n *Node) endRestored(v *ledger.State) {
	if is, _ := n.learner(); !is {
		return
	}
	if err := n.keys.EndRestored(planActivations(v)); err != nil {
		n.log.Debug("still a learner", "why", err)
		return
	}
	if err := n.loadRestored(); err != nil {
		n.log.Error("mark of a restore cannot be read", "err", err)
		return
	}
	if is, _ := n.learner(); !is {
		n.log.Info("key shares of its own in force: a full member again")
	}
}
