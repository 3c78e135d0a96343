package tss

import (
	"bytes"
	"errors"

	"github.com/fxamacker/cbor/v2"
)

// One encoding for what is hashed, signed and sent: core deterministic CBOR
// with integer keys. Decoding refuses what encoding would not have produced.
var (
	encMode = must(cbor.EncOptions{
		Sort: cbor.SortCoreDeterministic, IndefLength: cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty, TagsMd: cbor.TagsForbidden,
	}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8: cbor.UTF8RejectInvalid, MaxNestedLevels: 4, MaxArrayElements: 64, MaxMapPairs: 32,
	}.DecMode())
)

var errNotCanonical = errors.New("not the canonical encoding")

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
	if !bytes.Equal(b, encode(v)) {
		return errNotCanonical
	}
	return nil
}
