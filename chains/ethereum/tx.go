package ethereum

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/coffer-network/coffer/chains"
	"github.com/coffer-network/coffer/chains/internal/erc20"
	"github.com/coffer-network/coffer/ledger"
	"github.com/coffer-network/coffer/ledger/address"
	"github.com/coffer-network/coffer/ledger/fixed"
)

const (
	asset = "eth"

	// minGas is the intrinsic cost of any transaction, maxGas what one
	// transaction may use since EIP-7825.
	minGas = 21_000
	maxGas = 1 << 24
)

// payload is what is signed, behind the type byte (EIP-1559).
type payload struct {
	ChainID    *big.Int
	Sequence   uint64
	Tip        *big.Int
	FeeCap     *big.Int
	Gas        uint64
	To         [20]byte
	Value      *big.Int
	Data       []byte
	AccessList []rlp.RawValue
}

// Build implements chains.Chain. Type 2 alone: no blobs, no access list
// (spec: outflows §4).
func (c *Chain) Build(a ledger.Attempt) (chains.Unsigned, error) {
	u, err := c.build(a.Ethereum)
	if err != nil {
		return chains.Unsigned{}, fmt.Errorf("%w: %w", chains.ErrAttempt, err)
	}
	return u, nil
}

func (c *Chain) build(p *ledger.EthereumTx) (chains.Unsigned, error) {
	if p == nil {
		return chains.Unsigned{}, errors.New("no Ethereum transaction planned")
	}
	if p.ChainID != c.chainID {
		return chains.Unsigned{}, fmt.Errorf("of chain %d, want %d", p.ChainID, c.chainID)
	}
	from, err := address.EthereumOf(p.Pub)
	if err != nil {
		return chains.Unsigned{}, err
	}
	if address.EthereumAddress(from) != p.From {
		return chains.Unsigned{}, fmt.Errorf("sender %.42q is not its key's %s", p.From, address.EthereumAddress(from))
	}
	to, err := address.ParseEthereum(p.To)
	if err != nil {
		return chains.Unsigned{}, fmt.Errorf("destination: %w", err)
	}
	if err := checkFees(p.Gas, p.FeeCap, p.Tip); err != nil {
		return chains.Unsigned{}, err
	}
	recipient := common.Address(to)
	tx := types.NewTx(&types.DynamicFeeTx{
		ChainID: new(big.Int).SetUint64(p.ChainID), Nonce: p.Sequence,
		GasTipCap: new(big.Int).SetUint64(p.Tip), GasFeeCap: new(big.Int).SetUint64(p.FeeCap), Gas: p.Gas,
		To: &recipient, Value: new(big.Int).SetBytes(p.Value.Bytes()), Data: p.Data,
	})
	b, err := rlp.EncodeToBytes(payload{
		ChainID: tx.ChainId(), Sequence: p.Sequence, Tip: tx.GasTipCap(), FeeCap: tx.GasFeeCap(), Gas: p.Gas,
		To: to, Value: tx.Value(), Data: p.Data,
	})
	if err != nil {
		return chains.Unsigned{}, fmt.Errorf("encode: %w", err)
	}
	return chains.Unsigned{
		Chain: c.name, Bytes: append([]byte{types.DynamicFeeTxType}, b...), From: p.From,
		Inputs: []chains.ToSign{{Digest: c.signer.Hash(tx), Pub: p.Pub, Path: p.Path}},
	}, nil
}

func checkFees(gas, feeCap, tip uint64) error {
	switch {
	case gas < minGas || gas > maxGas:
		return fmt.Errorf("gas limit %d, want %d to %d", gas, minGas, maxGas)
	case feeCap == 0 || tip > feeCap:
		return fmt.Errorf("fee cap %d with tip %d", feeCap, tip)
	}
	return nil
}

// Reads implements chains.Chain. The sender is not in the bytes; it is tied to
// them by the key: From must be the address of the key that signs the digest of
// exactly these bytes, and the chain finds the sender in no other way.
func (c *Chain) Reads(u chains.Unsigned) (spends []string, pays []ledger.Payment, err error) {
	p, err := c.parse(u)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	pays, err = c.pays(u.From, p)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	return []string{resource(u.From, p.Sequence)}, pays, nil
}

func (c *Chain) parse(u chains.Unsigned) (payload, error) {
	var p payload
	if u.Chain != c.name {
		return p, fmt.Errorf("of chain %q, want %q", u.Chain, c.name)
	}
	if len(u.Bytes) == 0 || u.Bytes[0] != types.DynamicFeeTxType {
		return p, errors.New("not of type 2")
	}
	if err := rlp.DecodeBytes(u.Bytes[1:], &p); err != nil {
		return p, fmt.Errorf("decode: %w", err)
	}
	again, err := rlp.EncodeToBytes(p)
	switch {
	case err != nil || !bytes.Equal(again, u.Bytes[1:]):
		return p, errors.New("bytes are not the one encoding")
	case !p.ChainID.IsUint64() || p.ChainID.Uint64() != c.chainID:
		return p, fmt.Errorf("of chain %s, want %d", p.ChainID, c.chainID)
	case len(p.AccessList) != 0:
		return p, errors.New("access list")
	case !p.FeeCap.IsUint64() || !p.Tip.IsUint64():
		return p, fmt.Errorf("fee cap %s with tip %s", p.FeeCap, p.Tip)
	case len(u.Inputs) != 1:
		return p, fmt.Errorf("%d digests, want 1", len(u.Inputs))
	case u.TxID != "":
		return p, errors.New("transaction id before it is signed")
	}
	if err := checkFees(p.Gas, p.FeeCap.Uint64(), p.Tip.Uint64()); err != nil {
		return p, err
	}
	from, err := address.EthereumOf(u.Inputs[0].Pub)
	if err != nil {
		return p, err
	}
	if address.EthereumAddress(from) != u.From {
		return p, fmt.Errorf("sender %.42q is not its key's %s", u.From, address.EthereumAddress(from))
	}
	// What is signed is the digest, so a digest of other bytes is the one thing
	// that must never pass.
	if crypto.Keccak256Hash(u.Bytes) != u.Inputs[0].Digest {
		return p, errors.New("digest is not that of the bytes")
	}
	return p, nil
}

// pays says what the call moves: ether with no data, or a listed token with
// exactly one transfer, or nothing to ourselves, which is a cancel.
func (c *Chain) pays(from string, p payload) ([]ledger.Payment, error) {
	to := address.EthereumAddress(p.To)
	if len(p.Data) == 0 {
		value, err := fixed.FromBytes(p.Value.Bytes())
		if err != nil {
			return nil, fmt.Errorf("value: %w", err)
		}
		switch {
		case !value.IsZero():
			return []ledger.Payment{{Asset: asset, To: to, Amount: value}}, nil
		case to == from:
			return nil, nil
		}
		return nil, fmt.Errorf("nothing to %s", to)
	}
	token, ok := c.tokens[to]
	if !ok {
		return nil, fmt.Errorf("data for %s, which is no listed token", to)
	}
	if p.Value.Sign() != 0 {
		return nil, errors.New("ether for a token contract")
	}
	recipient, amount, err := erc20.ParseCall(p.Data)
	if err != nil {
		return nil, err
	}
	if amount.IsZero() {
		return nil, fmt.Errorf("no token to %s", recipient)
	}
	return []ledger.Payment{{Asset: token, To: recipient, Amount: amount}}, nil
}

// Finish implements chains.Chain.
func (c *Chain) Finish(u chains.Unsigned, sigs []chains.Signature) (chains.Raw, error) {
	p, err := c.parse(u)
	if err != nil {
		return chains.Raw{}, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	if _, err := c.pays(u.From, p); err != nil {
		return chains.Raw{}, fmt.Errorf("%w: %w", chains.ErrUnsigned, err)
	}
	if len(sigs) != 1 {
		return chains.Raw{}, fmt.Errorf("%w: %d, want 1", chains.ErrSignature, len(sigs))
	}
	sig, err := verify(u.Inputs[0], sigs[0])
	if err != nil {
		return chains.Raw{}, fmt.Errorf("%w: %w", chains.ErrSignature, err)
	}
	to := common.Address(p.To)
	tx, err := types.NewTx(&types.DynamicFeeTx{
		ChainID: p.ChainID, Nonce: p.Sequence, GasTipCap: p.Tip, GasFeeCap: p.FeeCap, Gas: p.Gas,
		To: &to, Value: p.Value, Data: p.Data,
	}).WithSignature(c.signer, sig)
	if err != nil {
		return chains.Raw{}, fmt.Errorf("%w: %w", chains.ErrSignature, err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return chains.Raw{}, fmt.Errorf("encode transaction: %w", err)
	}
	return chains.Raw{Bytes: raw, TxID: tx.Hash().Hex()}, nil
}

// verify returns r‖s‖v of a signature that recovers to the key that was asked
// to sign; with another parity the chain would see another sender.
func verify(in chains.ToSign, sig chains.Signature) ([]byte, error) {
	r, s := new(big.Int).SetBytes(sig.R[:]), new(big.Int).SetBytes(sig.S[:])
	if !crypto.ValidateSignatureValues(sig.RecID, r, s, true) {
		return nil, errors.New("out of range, or high S")
	}
	b := append(append(append([]byte(nil), sig.R[:]...), sig.S[:]...), sig.RecID)
	pub, err := crypto.SigToPub(in.Digest[:], b)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	if !bytes.Equal(crypto.CompressPubkey(pub), in.Pub) {
		return nil, errors.New("does not recover to the key that signs")
	}
	return b, nil
}

func resource(from string, sequence uint64) string {
	return from + ":" + strconv.FormatUint(sequence, 10)
}
