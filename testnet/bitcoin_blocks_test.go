package testnet

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/btcsuite/btcd/chaincfg"
	"github.com/btcsuite/btcd/chaincfg/chainhash"
	"github.com/btcsuite/btcd/wire"
)

// A crash may leave any prefix of the file, or garbage at its end: what is read is a whole chain, and the next
// block continues it.
func TestBlockFileSurvivesATornTail(t *testing.T) {
	genesis := *chaincfg.RegressionNetParams.GenesisHash
	path := filepath.Join(t.TempDir(), "blocks")
	blocks := must[*blockFile](t)(openBlockFile(path, genesis))
	next := func(parent chainhash.Hash, nonce uint32) *wire.MsgBlock {
		block := wire.NewMsgBlock(&wire.BlockHeader{PrevBlock: parent, Nonce: nonce})
		tx := wire.NewMsgTx(1)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{}, nil, nil)) // without inputs it would not decode
		if err := block.AddTransaction(tx); err != nil {
			t.Fatal(err)
		}
		return block
	}
	for i := range uint32(3) {
		if err := blocks.append(next(blocks.hash(blocks.height()), i)); err != nil {
			t.Fatal(err)
		}
	}
	blocks.file.Close()
	whole := must[[]byte](t)(os.ReadFile(path))

	for size := range len(whole) + 1 {
		damaged := filepath.Join(t.TempDir(), "blocks")
		if err := os.WriteFile(damaged, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, want := reopen(t, damaged, genesis, next), int64(size/(len(whole)/3)); got != want {
			t.Errorf("of %d bytes %d blocks were read, want %d", size, got, want)
		}
	}
	stranger := must[*blockFile](t)(openBlockFile(path, chainhash.Hash{1}))
	defer stranger.file.Close()
	if stranger.height() != 0 {
		t.Error("blocks of another chain were read")
	}
}

func reopen(t *testing.T, path string, genesis chainhash.Hash, next func(chainhash.Hash, uint32) *wire.MsgBlock) int64 {
	t.Helper()
	blocks := must[*blockFile](t)(openBlockFile(path, genesis))
	height := blocks.height()
	if err := blocks.append(next(blocks.hash(height), 99)); err != nil {
		t.Fatal(err)
	}
	blocks.file.Close()
	blocks = must[*blockFile](t)(openBlockFile(path, genesis))
	defer blocks.file.Close()
	if blocks.height() != height+1 {
		t.Errorf("a block was appended to %d, and %d are read", height, blocks.height())
	}
	return height
}
