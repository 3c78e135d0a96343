package node

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/coffer-network/coffer/tss"
	"github.com/coffer-network/coffer/tss/keystore"
)

// KeyShares lists what this node's keystore holds, and with audit checks each
// KeyShare anew against its public commitments and the ledger.
func (n *Node) KeyShares(ctx context.Context, audit bool) (client.KeyShares, error) {
	infos, err := n.keys.Shares()
	if err != nil {
		return client.KeyShares{}, err
	}
	v := n.View()
	out := listKeyShares(v, n.self, infos, n.name)
	out.SetAsOf(v.Height)
	if !audit {
		return out, nil
	}
	for i := range out.Shares {
		if err := ctx.Err(); err != nil {
			return out, err // an ECDSA share takes up to a second
		}
		if x := infos[i]; x.State != keystore.Wiped && x.Err == nil {
			out.Shares[i].Audit = auditKeyShare(n.keys, v, n.self, x.ID)
		}
	}
	return out, nil
}

// listKeyShares says what there is, in the keystore's order, and what the ledger
// expects of this member and is not there.
func listKeyShares(v *ledger.State, self ledger.MemberID, infos []keystore.ShareInfo, name func(ledger.MemberID) string) client.KeyShares {
	out := client.KeyShares{Shares: []client.KeyShare{}, Missing: []string{}}
	signs := map[keystore.ShareID]bool{} // a rollback puts retired ones in force again
	for _, x := range infos {
		row := client.KeyShare{
			Key: x.ID.Key, Epoch: x.ID.Epoch, Try: x.ID.Try, State: x.State.String(), Curve: x.Curve, Needed: x.M, Holders: []string{},
		}
		for _, p := range x.Parties {
			row.Holders = append(row.Holders, name(ledger.MemberID(p)))
		}
		switch {
		case x.State == keystore.Wiped:
		case x.Err != nil:
			row.Audit = "cannot be read: " + x.Err.Error()
		default:
			signs[x.ID] = x.State == keystore.Active || x.State == keystore.Retired
			row.PublicKey, row.Transcript = hex.EncodeToString(x.Pub), hex.EncodeToString(x.Transcript[:])
			if x.State != keystore.Active {
				row.Kept = v.WhyKeep(generation(x.ID))
			}
		}
		out.Shares = append(out.Shares, row)
	}
	if !v.Epoch().Has(self) {
		return out
	}
	for _, k := range v.Keys.All() {
		if id := (keystore.ShareID{Key: k.ID, Epoch: k.Epoch, Try: k.Try}); len(k.Pub) > 0 && !signs[id] {
			out.Missing = append(out.Missing, id.String())
		}
	}
	return out
}

// auditKeyShare says what is wrong with a KeyShare, or client.KeyShareSound.
func auditKeyShare(keys *keystore.Keystore, v *ledger.State, self ledger.MemberID, id keystore.ShareID) string {
	s, _, err := keys.KeyShare(id)
	if err != nil {
		return "cannot be read: " + err.Error()
	}
	defer s.Wipe()
	if k, ok := v.Keys.Get(id.Key); ok && len(k.Pub) > 0 && string(k.Pub) != string(s.Pub) {
		return fmt.Sprintf("its public key %x is not the ledger's, %x", s.Pub, k.Pub)
	}
	if err := tss.Audit(&s, v.Cluster, tss.PartyID(self)); err != nil {
		return err.Error()
	}
	return client.KeyShareSound
}
