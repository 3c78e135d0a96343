package tss

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/common"
	ecdsasigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	lib "github.com/bnb-chain/tss-lib/v2/tss"

	"golang.org/x/sync/errgroup"

	"github.com/coffer-network/coffer/tss/keystore"
)

// This file is a measurement baseline, not a way to sign: the library alone, in
// one process, without guard, envelopes, joined set or transport.

// RawSign makes one ECDSA signature over digest with the master key by running
// the library's parties in this process, each on a goroutine of its own. shares
// are those of exactly M parties.
func RawSign(ctx context.Context, cluster [32]byte, shares []keystore.KeyShare, digest []byte) error {
	if len(shares) == 0 || len(shares) != shares[0].M {
		return errors.New("raw sign: want exactly the signing threshold of shares")
	}
	r := Request{
		Cluster: cluster, Kind: Sign, Key: KeyID{ID: shares[0].ID.Key, Curve: Secp256k1}, Epoch: shares[0].ID.Epoch,
	}
	ids, mine, err := rawParties(&r, shares)
	if err != nil {
		return err
	}
	n := len(ids)
	msg := new(big.Int).SetBytes(digest)
	inbox := make([]chan lib.Message, n)
	for i := range inbox {
		inbox[i] = make(chan lib.Message, 40*n)
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range ids {
		data, err := decodeECDSA(mine[i], cluster)
		if err != nil {
			return fmt.Errorf("raw sign: %w", err)
		}
		params := lib.NewParameters(lib.S256(), lib.NewPeerContext(ids), ids[i], n, libThreshold(n))
		out, end := make(chan lib.Message, 40*n), make(chan *common.SignatureData, 1)
		party := ecdsasigning.NewLocalParty(msg, params, *data, out, end, 32)
		g.Go(func() error { return runRaw(ctx, i, party, out, end, inbox) })
	}
	return g.Wait()
}

// rawParties puts the shares in the order of their party keys.
func rawParties(r *Request, shares []keystore.KeyShare) (lib.SortedPartyIDs, []*keystore.KeyShare, error) {
	byKey := map[string]*keystore.KeyShare{}
	for i := range shares {
		data, err := decodeECDSA(&shares[i], r.Cluster)
		if err != nil {
			return nil, nil, fmt.Errorf("raw sign: %w", err)
		}
		for j, k := range data.Ks {
			if k.Cmp(data.ShareID) == 0 {
				r.Parties = append(r.Parties, shares[i].Parties[j])
			}
		}
		byKey[string(data.ShareID.Bytes())] = &shares[i]
	}
	if len(r.Parties) != len(shares) || len(byKey) != len(shares) {
		return nil, nil, errors.New("raw sign: shares of different members wanted")
	}
	ids := partyIDs(*r, r.Parties)
	mine := make([]*keystore.KeyShare, len(ids))
	for i, id := range ids {
		mine[i] = byKey[string(id.Key)]
	}
	return ids, mine, nil
}

func runRaw(ctx context.Context, self int, party lib.Party, out chan lib.Message, end chan *common.SignatureData, inbox []chan lib.Message) error {
	if err := party.Start(); err != nil {
		return fmt.Errorf("raw sign: %s", err.Error())
	}
	for {
		for len(out) > 0 {
			m := <-out
			for i := range inbox {
				if i != self && (m.GetTo() == nil || m.GetTo()[0].Index == i) {
					inbox[i] <- m
				}
			}
		}
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case m := <-inbox[self]:
			b, _, err := m.WireBytes()
			if err != nil {
				return fmt.Errorf("raw sign: %w", err)
			}
			if _, err := party.UpdateFromBytes(b, m.GetFrom(), m.IsBroadcast()); err != nil {
				return fmt.Errorf("raw sign: %s", err.Error())
			}
		}
	}
}
