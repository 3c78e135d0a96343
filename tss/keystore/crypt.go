package keystore

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
)

const (
	keyBytes  = chacha20poly1305.KeySize
	saltBytes = 16
	// defaultLogN makes one guess of the passphrase cost 256 MiB and most of a
	// second (spec: signing §11: N = 2^18, r = 8, p = 1).
	defaultLogN = 18
	maxLogN     = 22 // 4 GiB; a key file asking for more is not ours
	scryptR     = 8
	scryptP     = 1
	// maxKeyFile: a key file has about 130 bytes.
	maxKeyFile = 4 << 10

	keyFileMagic = "coffer/keystore/1"
)

// keyHeader is the content of the key file: the file key, wrapped.
type keyHeader struct {
	Magic   string `cbor:"1,keyasint"`
	LogN    uint8  `cbor:"2,keyasint"`
	R       uint8  `cbor:"3,keyasint"`
	P       uint8  `cbor:"4,keyasint"`
	Salt    []byte `cbor:"5,keyasint"`
	Wrapped []byte `cbor:"6,keyasint"`
}

// ad binds the wrapped key to the cost it was wrapped with and to the node.
func (h keyHeader) ad(node [32]byte) []byte {
	return encode([]any{h.Magic, h.LogN, h.R, h.P, h.Salt, node})
}

func (h keyHeader) derive(passphrase []byte) ([]byte, error) {
	key, err := scrypt.Key(passphrase, h.Salt, 1<<h.LogN, int(h.R), int(h.P), keyBytes)
	// scrypt's 256 MiB would otherwise stay with the process for minutes.
	debug.FreeOSMemory()
	return key, err
}

// writeKeyFile makes a file key and writes it, wrapped under the passphrase.
func writeKeyFile(path string, passphrase []byte, o Options) error {
	h := keyHeader{Magic: keyFileMagic, LogN: defaultLogN, R: scryptR, P: scryptP}
	if o.TestWorkFactor != 0 {
		h.LogN = uint8(o.TestWorkFactor)
	}
	fileKey, err := randomBytes(keyBytes)
	if err != nil {
		return err
	}
	defer clear(fileKey)
	if h.Salt, err = randomBytes(saltBytes); err != nil {
		return err
	}
	kek, err := h.derive(passphrase)
	if err != nil {
		return fmt.Errorf("derive from passphrase: %w", err)
	}
	defer clear(kek)
	if h.Wrapped, err = seal(kek, h.ad(o.Node), fileKey); err != nil {
		return err
	}
	return writeFileSync(path, encode(h))
}

func readKeyFile(path string, passphrase []byte, node [32]byte) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	var h keyHeader
	if err := decode(b, &h); err != nil || h.Magic != keyFileMagic {
		return nil, &CorruptError{Record: path, Err: errors.New("not a keystore key file")}
	}
	if h.LogN < 1 || h.LogN > maxLogN || h.R != scryptR || h.P != scryptP || len(h.Salt) != saltBytes {
		return nil, &CorruptError{Record: path, Err: errors.New("scrypt parameters out of range")}
	}
	kek, err := h.derive(passphrase)
	if err != nil {
		return nil, fmt.Errorf("derive from passphrase: %w", err)
	}
	defer clear(kek)
	fileKey, err := open(kek, h.ad(node), h.Wrapped)
	if err != nil {
		// A wrong passphrase, a damaged file and another node's file look alike.
		return nil, ErrPassphrase
	}
	return fileKey, nil
}

// writeFileSync writes a new file with mode 0600 and syncs it and its
// directory.
func writeFileSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// recordAD is what a record's encryption is bound to (spec: signing §11): kind,
// key, epoch, try, node and state; name is the rest of a plain record's key.
func (k *Keystore) recordAD(kind byte, id ShareID, state ShareState, name []byte) []byte {
	return encode([]any{kind, id.Key, id.Epoch, id.Try, k.node, uint8(state), name})
}

func (k *Keystore) plainAD(key recordKey) []byte {
	return k.recordAD(key.kind(), ShareID{}, 0, key[1:])
}

// seal encrypts with a random 24-byte nonce, which stands in front.
func seal(key, ad, plain []byte) ([]byte, error) {
	if len(plain) > MaxRecord {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(plain), MaxRecord)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	nonce, err := randomBytes(aead.NonceSize())
	if err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, plain, ad), nil
}

func open(key, ad, sealed []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("too short")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], ad)
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("draw random bytes: %w", err)
	}
	return b, nil
}

// One encoding: core deterministic CBOR, and decoding refuses what encoding
// would not have produced.
var (
	encMode = must(cbor.EncOptions{
		Sort: cbor.SortCoreDeterministic, IndefLength: cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty, TagsMd: cbor.TagsForbidden,
	}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encode(v any) []byte { return must(encMode.Marshal(v)) }

func decode(b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return err
	}
	if again, err := encMode.Marshal(v); err != nil || !bytes.Equal(again, b) {
		return errors.New("not the canonical encoding")
	}
	return nil
}
