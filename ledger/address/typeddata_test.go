package address

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// typedDataMessage reads eth_signTypedData_v4 JSON, as wallets do, to the 66
// bytes that are hashed and signed.
func typedDataMessage(doc []byte) ([]byte, error) {
	var data typedData
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&data); err != nil {
		return nil, err
	}
	domain, err := data.hashStruct("EIP712Domain", data.Domain)
	if err != nil {
		return nil, err
	}
	message, err := data.hashStruct(data.PrimaryType, data.Message)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte{0x19, 0x01}, domain, message), nil
}

type typedData struct {
	Domain, Message map[string]any
	Types           map[string][]struct{ Name, Type string }
	PrimaryType     string
}

func (t typedData) hashStruct(name string, values map[string]any) ([]byte, error) {
	if _, ok := t.Types[name]; !ok {
		return nil, fmt.Errorf("no type %q", name)
	}
	enc := hashText(t.encodeType(name))
	for _, m := range t.Types[name] {
		word, err := t.word(m.Type, values[m.Name])
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", name, m.Name, err)
		}
		enc = append(enc, word...)
	}
	return hashText(string(enc)), nil
}

// encodeType: the type, then those it refers to, sorted.
func (t typedData) encodeType(name string) string {
	var others []string
	var walk func(string)
	walk = func(n string) {
		for _, m := range t.Types[n] {
			of, _, _ := strings.Cut(m.Type, "[")
			if _, ok := t.Types[of]; ok && of != name && !slices.Contains(others, of) {
				others = append(others, of)
				walk(of)
			}
		}
	}
	walk(name)
	slices.Sort(others)
	out := ""
	for _, n := range append([]string{name}, others...) {
		var members []string
		for _, m := range t.Types[n] {
			members = append(members, m.Type+" "+m.Name)
		}
		out += n + "(" + strings.Join(members, ",") + ")"
	}
	return out
}

func (t typedData) word(kind string, v any) ([]byte, error) {
	if of, ok := strings.CutSuffix(kind, "]"); ok {
		list, isList := v.([]any)
		if of = of[:strings.LastIndex(of, "[")]; !isList {
			return nil, errors.New("no list")
		}
		var enc []byte
		for _, e := range list {
			word, err := t.word(of, e)
			if err != nil {
				return nil, err
			}
			enc = append(enc, word...)
		}
		return hashText(string(enc)), nil
	}
	if _, ok := t.Types[kind]; ok {
		values, ok := v.(map[string]any)
		if !ok {
			return nil, errors.New("no struct")
		}
		return t.hashStruct(kind, values)
	}
	text, isText := v.(string)
	switch {
	case kind == "string" && isText:
		return hashText(text), nil
	case kind == "bool":
		b, ok := v.(bool)
		word := make([]byte, 32)
		if b {
			word[31] = 1
		}
		if !ok {
			return nil, errors.New("no bool")
		}
		return word, nil
	case (strings.HasPrefix(kind, "bytes") || kind == "address") && isText:
		b, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
		if err != nil || len(b) > 32 && kind != "bytes" {
			return nil, fmt.Errorf("%s: %q", kind, text)
		}
		word := make([]byte, 32)
		switch kind {
		case "bytes":
			return hashText(string(b)), nil
		case "address":
			copy(word[32-len(b):], b)
		default:
			copy(word, b)
		}
		return word, nil
	case strings.HasPrefix(kind, "uint") || strings.HasPrefix(kind, "int"):
		n, ok := new(big.Int).SetString(fmt.Sprint(v), 0)
		if _, err := strconv.Atoi(strings.TrimLeft(kind, "uint")); err != nil || !ok {
			return nil, fmt.Errorf("%s: %v", kind, v)
		}
		return n.And(n, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))).FillBytes(make([]byte, 32)), nil
	}
	return nil, fmt.Errorf("type %q of %T", kind, v)
}
