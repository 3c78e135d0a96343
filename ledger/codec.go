package ledger

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// One encoding for log, snapshot, peer streams and signed bytes: deterministic
// CBOR (RFC 8949 section 4.2.1) with integer keys. Two encodings of one value
// would be two hashes of one fact, so decoding refuses whatever encoding would
// not have produced.
var (
	encMode = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		NaNConvert:    cbor.NaNConvertReject,
		InfConvert:    cbor.InfConvertReject,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
		TagsMd:        cbor.TagsForbidden,
	}.EncMode())
	decMode   = decoder(1 << 24) // a snapshot section of the stated 10⁷ accounts
	chunkMode = decoder(chunkRows)
)

// decoder refuses arrays of more elements before it takes room for them.
func decoder(elements int) cbor.DecMode {
	return must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   16,
		MaxArrayElements:  elements,
		MaxMapPairs:       1 << 10,
	}.DecMode())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ErrNotCanonical says that bytes decode, but are not what encoding gives.
var ErrNotCanonical = errors.New("not the canonical encoding")

// Marshal returns the one encoding of v.
// It panics for a type that has none, which is a mistake of ours.
func Marshal(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("ledger: encode %T: %v", v, err))
	}
	return b
}

// Unmarshal decodes b into v and refuses bytes that Marshal(v) would not give:
// unknown fields, doubled keys, other lengths, trailing bytes.
func Unmarshal(b []byte, v any) error { return unmarshal(decMode, b, v) }

func unmarshal(mode cbor.DecMode, b []byte, v any) error {
	if err := mode.Unmarshal(b, v); err != nil {
		return err
	}
	if !bytes.Equal(b, Marshal(v)) {
		return ErrNotCanonical
	}
	return nil
}
