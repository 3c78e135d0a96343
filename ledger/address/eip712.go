package address

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// EIP-712 shows the same command as fields instead of lines. What is signed:
//
//	domain   EIP712Domain(string name,string version,uint256 chainId,bytes32 salt)
//	         the brand, "1", the chain of the wallet that signs, SHA-256 of Cluster
//	message  one type per action, named by its words ("Open account": OpenAccount).
//	         Members in the order of the text, "Action" first, each named by its
//	         key ("Max fee": maxFee); each a string, and its value what stands
//	         after the key in the text
//
// So whoever compares a device with a text compares equal words, and there is
// no second spelling of an amount or a time.
//
// Why not uint256 and uint64 members: wallets show them as bare numbers, and
// 15000000000 is not how anybody reads 15000 USDT.
//
// Why not verifyingContract: there is no contract. The salt binds the cluster,
// as the text's Cluster does.

const (
	typedDomain  = "EIP712Domain(string name,string version,uint256 chainId,bytes32 salt)"
	typedVersion = "1"

	// typedMessageSize is 0x19 0x01, the domain's hash and the message's.
	typedMessageSize = 2 + 32 + 32

	// maxChainDigits keeps chainId a number that every JSON reader keeps exact:
	// below 2⁵³. A chain beyond it has no eip712.
	maxChainDigits = 15
)

// Message is what the wallet by signs for c under a scheme: the text, or for
// eip712 the 66 bytes of EIP-712 that stand for TypedData. False where the
// scheme does not fit the wallet's chain.
func (g *Grammar) Message(scheme string, by CAIP10, c *Command) ([]byte, bool) {
	if !SchemeFits(scheme, by.Namespace) {
		return nil, false
	}
	if scheme != SchemeEIP712 {
		return []byte(g.Render(c)), true
	}
	chain, ok := chainWord(by)
	if !ok {
		return nil, false
	}
	salt := sha256.Sum256([]byte(c.Cluster))
	name, members := typedMembers(c)
	enc := typeHash(name, members)
	for _, m := range members {
		enc = append(enc, hashText(m.value)...)
	}
	domain := hashText(typedDomain)
	domain = append(domain, hashText(g.Brand)...)
	domain = append(domain, hashText(typedVersion)...)
	domain = append(append(domain, chain[:]...), salt[:]...)
	out := append([]byte{0x19, 0x01}, hashText(string(domain))...)
	return append(out, hashText(string(enc))...), true
}

// TypedData is the JSON that a client hands to eth_signTypedData_v4 for the
// wallet by to sign c: the same bytes on every node. False where by is on no
// chain that has it.
func (g *Grammar) TypedData(by CAIP10, c *Command) ([]byte, bool) {
	if _, ok := chainWord(by); !ok {
		return nil, false
	}
	salt := sha256.Sum256([]byte(c.Cluster))
	name, members := typedMembers(c)
	var types, values []string
	for _, m := range members {
		types = append(types, `{"name":"`+m.name+`","type":"string"}`)
		values = append(values, `"`+m.name+`":`+quoted(m.value))
	}
	return []byte(`{"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"version","type":"string"},` +
		`{"name":"chainId","type":"uint256"},{"name":"salt","type":"bytes32"}],"` + name + `":[` + strings.Join(types, ",") +
		`]},"primaryType":"` + name + `","domain":{"name":` + quoted(g.Brand) + `,"version":"` + typedVersion + `","chainId":` + by.Reference +
		`,"salt":"0x` + hex.EncodeToString(salt[:]) + `"},"message":{` + strings.Join(values, ",") + `}}`), true
}

// typedMember is one field of a command as EIP-712 has it.
type typedMember struct{ name, value string }

// typedMembers are the name and members of a command's type.
func typedMembers(c *Command) (string, []typedMember) {
	members := []typedMember{{identifier("Action", false), c.Action}}
	a, _ := row(c.Action)
	for _, f := range a.fields {
		members = append(members, typedMember{identifier(f.key, false), f.render(c)})
	}
	return identifier(c.Action, true), members
}

// identifier joins the words of a key or an action: "Max fee" is maxFee, or
// MaxFee with a capital.
func identifier(words string, capital bool) string {
	var b strings.Builder
	for i, w := range strings.FieldsFunc(words, func(r rune) bool { return r == ' ' || r == '-' }) {
		first := strings.ToUpper(w[:1])
		if i == 0 && !capital {
			first = strings.ToLower(first)
		}
		b.WriteString(first + w[1:])
	}
	return b.String()
}

// typeHash begins the encoding of a struct of strings.
func typeHash(name string, members []typedMember) []byte {
	var all []string
	for _, m := range members {
		all = append(all, "string "+m.name)
	}
	return hashText(name + "(" + strings.Join(all, ",") + ")")
}

func hashText(s string) []byte {
	h := keccak256([]byte(s))
	return h[:]
}

// chainWord is the chain id of an Ethereum wallet as a 256-bit word.
func chainWord(by CAIP10) (word [32]byte, ok bool) {
	if by.Namespace != NamespaceEthereum || !digits(by.Reference, 1, maxChainDigits) || by.Reference[0] == '0' {
		return word, false
	}
	n := uint64(0)
	for _, d := range []byte(by.Reference) {
		n = 10*n + uint64(d-'0')
	}
	for i := range 8 {
		word[31-i] = byte(n >> (8 * i))
	}
	return word, true
}

// quoted is JSON for text that is printable ASCII, as a Grammar's is.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// verifyEIP712 takes for message what Message gives.
func verifyEIP712(r request) bool {
	return r.network == NetworkEthereum && len(r.message) == typedMessageSize && r.message[0] == 0x19 && r.message[1] == 0x01 &&
		verifyEthereumDigest(r.address, keccak256(r.message), r.signature)
}
