package testnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/wire"
)

const (
	// maxBlockBytes is consensus' bound on a serialized block.
	maxBlockBytes = 4_000_000
	// blockPrefixBytes is the length in front of each block of the file.
	blockPrefixBytes = 4
	// syncRounds bounds how often a chain that is reorganized while it is read is read again.
	syncRounds = 10
)

// blockFile keeps the chain's blocks beside the node, from height 1 on, each behind its length.
//
// Why not btcd's own database: btcd deletes its regtest chain each time it starts, and a btcd that is killed
// forgets its last five minutes in any case. The ledgers of the nodes remember what was final, so a resumed network
// must find the very same chain. At start the blocks are given back to the node with submitblock.
//
// It is not safe for concurrent use.
type blockFile struct {
	file    *os.File
	ends    []int64 // where the block at height i+1 ends
	hashes  []chainhash.Hash
	genesis chainhash.Hash
}

// openBlockFile reads the file, dropping a tail that a crash left half-written.
func openBlockFile(path string, genesis chainhash.Hash) (*blockFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open block file: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open block file: %w", err)
	}
	b := &blockFile{file: file, genesis: genesis}
	for {
		block, end, err := b.read(b.height() + 1)
		if errors.Is(err, errNoBlock) {
			break
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read block file: %w", err), file.Close())
		}
		b.ends, b.hashes = append(b.ends, end), append(b.hashes, block.BlockHash())
	}
	if err := b.truncate(b.height()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return b, nil
}

// errNoBlock: what stands at the place is not a whole block that continues the chain.
var errNoBlock = errors.New("no block")

func (b *blockFile) height() int64 { return int64(len(b.hashes)) }

func (b *blockFile) hash(height int64) chainhash.Hash {
	if height == 0 {
		return b.genesis
	}
	return b.hashes[height-1]
}

func (b *blockFile) end(height int64) int64 {
	if height == 0 {
		return 0
	}
	return b.ends[height-1]
}

// read returns the block at a height, at most one above the last known, and where it ends.
func (b *blockFile) read(height int64) (*wire.MsgBlock, int64, error) {
	start := b.end(height - 1)
	var prefix [blockPrefixBytes]byte
	if _, err := b.file.ReadAt(prefix[:], start); err != nil {
		return nil, 0, noBlockAtEOF(err)
	}
	size := int64(binary.BigEndian.Uint32(prefix[:]))
	if size > maxBlockBytes {
		return nil, 0, errNoBlock
	}
	raw := make([]byte, size)
	if _, err := b.file.ReadAt(raw, start+blockPrefixBytes); err != nil {
		return nil, 0, noBlockAtEOF(err)
	}
	var block wire.MsgBlock
	if err := block.Deserialize(bytes.NewReader(raw)); err != nil || block.Header.PrevBlock != b.hash(height-1) {
		return nil, 0, errNoBlock
	}
	return &block, start + blockPrefixBytes + size, nil
}

func noBlockAtEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return errNoBlock
	}
	return err
}

func (b *blockFile) truncate(height int64) error {
	if err := b.file.Truncate(b.end(height)); err != nil {
		return fmt.Errorf("shorten block file: %w", err)
	}
	b.ends, b.hashes = b.ends[:height], b.hashes[:height]
	return nil
}

func (b *blockFile) append(block *wire.MsgBlock) error {
	var raw bytes.Buffer
	raw.Write(make([]byte, blockPrefixBytes))
	if err := block.Serialize(&raw); err != nil {
		return fmt.Errorf("encode block: %w", err)
	}
	binary.BigEndian.PutUint32(raw.Bytes(), uint32(raw.Len()-blockPrefixBytes))
	start := b.end(b.height())
	if _, err := b.file.WriteAt(raw.Bytes(), start); err != nil {
		return fmt.Errorf("write block file: %w", err)
	}
	b.ends, b.hashes = append(b.ends, start+int64(raw.Len())), append(b.hashes, block.BlockHash())
	return nil
}

// restore gives the node the blocks it does not have.
func (b *blockFile) restore(ctx context.Context, rpc BitcoinRPC, progress Progress) (err error) {
	have, err := rpc.Height(ctx)
	if err != nil || have >= b.height() {
		return err
	}
	task := progress.Begin("restore bitcoin blocks", Size{Total: b.height() - have})
	defer func() { task.End(err) }()
	for height := have + 1; height <= b.height(); height++ {
		block, _, err := b.read(height)
		if err != nil {
			return fmt.Errorf("read block %d: %w", height, err)
		}
		if err := rpc.submit(ctx, block); err != nil {
			return fmt.Errorf("give block %d back: %w", height, err)
		}
		task.Add(1)
	}
	return nil
}

func (r BitcoinRPC) submit(ctx context.Context, block *wire.MsgBlock) error {
	var raw bytes.Buffer
	if err := block.Serialize(&raw); err != nil {
		return fmt.Errorf("encode block: %w", err)
	}
	var refusal *string // null if the block was accepted
	if err := r.Call(ctx, &refusal, "submitblock", hex.EncodeToString(raw.Bytes())); err != nil {
		return err
	}
	if refusal != nil {
		return errors.New(*refusal)
	}
	return nil
}

// sync makes the file the node's chain: blocks that a reorganization removed go, new ones come.
func (b *blockFile) sync(ctx context.Context, rpc BitcoinRPC) error {
	before := b.hash(b.height())
	for range syncRounds {
		again, err := b.syncOnce(ctx, rpc)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if b.hash(b.height()) == before {
			return nil
		}
		if err := b.file.Sync(); err != nil {
			return fmt.Errorf("write block file: %w", err)
		}
		return nil
	}
	return fmt.Errorf("the bitcoin chain was reorganized %d times while it was read", syncRounds)
}

func (b *blockFile) syncOnce(ctx context.Context, rpc BitcoinRPC) (again bool, err error) {
	height, err := rpc.Height(ctx)
	if err != nil {
		return false, err
	}
	common := min(height, b.height())
	for ; common > 0; common-- {
		var hash string
		if err := rpc.Call(ctx, &hash, "getblockhash", common); err != nil {
			return false, err
		}
		if hash == b.hash(common).String() {
			break
		}
	}
	if common < b.height() {
		if err := b.truncate(common); err != nil {
			return false, err
		}
	}
	for b.height() < height {
		block, err := rpc.Block(ctx, b.height()+1)
		if err != nil {
			return false, err
		}
		if block.Header.PrevBlock != b.hash(b.height()) {
			return true, nil
		}
		if err := b.append(block); err != nil {
			return false, err
		}
	}
	return false, nil
}
