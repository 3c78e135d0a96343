package testnet

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/wire"
	"github.com/coffer-network/coffer/node/api/client"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// What the demo reads from the chains, and how it finds who signed it.

// tokenPaid reads from the chain what a transaction's logs of the test token bring to an address.
func (d *demo) tokenPaid(ctx context.Context, txid string, to common.Address) (*big.Int, error) {
	r, err := d.Ethereum.Client().TransactionReceipt(ctx, common.HexToHash(txid))
	if err != nil {
		return nil, fmt.Errorf("receipt of %s: %w", txid, err)
	}
	if r.Status != types.ReceiptStatusSuccessful {
		return nil, fmt.Errorf("%s failed on the chain", txid)
	}
	sum := new(big.Int)
	for _, l := range r.Logs {
		if l.Address == d.Ethereum.Token() && len(l.Topics) == 3 && common.BytesToAddress(l.Topics[2].Bytes()) == to {
			sum.Add(sum, new(big.Int).SetBytes(l.Data))
		}
	}
	return sum, nil
}

// ethereumSigners finds the session whose signature the chain holds, in the records of its parties.
func (d *demo) ethereumSigners(ctx context.Context, s *Step, o *client.OutflowDetail) error {
	tx, _, err := d.Ethereum.Client().TransactionByHash(ctx, common.HexToHash(o.TxID))
	if err != nil {
		return fmt.Errorf("transaction %s: %w", o.TxID, err)
	}
	_, r, sv := tx.RawSignatureValues()
	return d.signers(ctx, s, o, r, sv)
}

func (d *demo) signers(ctx context.Context, s *Step, o *client.OutflowDetail, r, sv *big.Int) error {
	sig := hex.EncodeToString(append(r.FillBytes(make([]byte, 32)), sv.FillBytes(make([]byte, 32))...))
	txid := o.TxID
	s.TxID = &txid
	for _, np := range d.Nodes {
		rec, err := np.Client.Outflow(ctx, o.ID)
		if err != nil {
			continue // down, as in the step that kills one
		}
		for _, x := range rec.Local.Signed {
			if x.Signature == sig && slices.Contains(x.Parties, np.Name) {
				s.Signers = x.Parties
				return nil
			}
		}
	}
	return fmt.Errorf("no party recorded the signature of %s", o.TxID)
}

func (d *demo) bitcoinSigners(ctx context.Context, s *Step, o *client.OutflowDetail, tx *wire.MsgTx) error {
	w := tx.TxIn[0].Witness
	if len(w) != 2 || len(w[0]) < 9 {
		return fmt.Errorf("%s: input 0 is no P2WPKH spend", o.TxID)
	}
	sig, err := ecdsa.ParseDERSignature(w[0][:len(w[0])-1])
	if err != nil {
		return fmt.Errorf("%s: %w", o.TxID, err)
	}
	r, sv := sig.R(), sig.S()
	rb, sb := r.Bytes(), sv.Bytes()
	return d.signers(ctx, s, o, new(big.Int).SetBytes(rb[:]), new(big.Int).SetBytes(sb[:]))
}
