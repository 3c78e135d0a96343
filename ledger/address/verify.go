package address

// Networks outside Bitcoin, by the names the signature vectors use. Their
// schemes bind no network at all; the request text does (trap 10).
const (
	NetworkEthereum = "ethereum"
	NetworkSolana   = "solana"
	NetworkIC       = "ic"
)

// The schemes a client may declare (spec: requests §2). Never guessed.
const (
	SchemeBIP322       = "bip322"
	SchemeBIP137       = "bip137"
	SchemeEIP191       = "eip191"
	SchemeEIP712       = "eip712" // optional: off unless the ledger's parameters say otherwise
	SchemeSolana       = "solana"
	SchemeSolanaV0     = "solana-offchain-v0"
	SchemeSolanaV1     = "solana-offchain-v1"
	SchemeSolanaLedger = "solana-offchain-ledger"
	SchemeICEd25519    = "ic-ed25519"
	SchemeICSecp256k1  = "ic-secp256k1"
)

// Extras is what a scheme needs beside address, message and signature, as the
// client sent it. A scheme ignores what it does not use.
type Extras struct {
	ApplicationDomain string `cbor:"1,keyasint,omitempty"` // solana-offchain-v0: base58 of 32 bytes
	Format            *uint8 `cbor:"2,keyasint,omitempty"` // solana-offchain-v0 and -ledger; nil: by the message
	PublicKeyDER      []byte `cbor:"3,keyasint,omitempty"` // ic-ed25519, ic-secp256k1
}

// request is one signature to judge.
type request struct {
	network, address string
	message          []byte
	signature        string
	extras           Extras
}

type scheme struct {
	name      string
	namespace string // of the Signer it fits
	verify    func(request) bool
}

// schemes: to add one is to add a row, and with it a ledger version.
var schemes = [...]scheme{
	{SchemeBIP322, NamespaceBitcoin, verifyBIP322},
	{SchemeBIP137, NamespaceBitcoin, verifyBIP137},
	{SchemeEIP191, NamespaceEthereum, verifyEIP191},
	{SchemeEIP712, NamespaceEthereum, verifyEIP712},
	{SchemeSolana, NamespaceSolana, verifySolana},
	{SchemeSolanaV0, NamespaceSolana, verifySolanaV0},
	{SchemeSolanaV1, NamespaceSolana, verifySolanaV1},
	{SchemeSolanaLedger, NamespaceSolana, verifySolanaLedger},
	{SchemeICEd25519, NamespaceICP, verifyICEd25519},
	{SchemeICSecp256k1, NamespaceICP, verifyICSecp256k1},
}

func schemeOf(name string) (scheme, bool) {
	for _, s := range schemes {
		if s.name == name {
			return s, true
		}
	}
	return scheme{}, false
}

// Schemes lists the schemes Verify knows.
func Schemes() []string {
	names := make([]string, 0, len(schemes))
	for _, s := range schemes {
		names = append(names, s.name)
	}
	return names
}

// SchemeFits reports whether a Signer of the CAIP-2 namespace may declare the
// scheme; false for a scheme that is not known.
func SchemeFits(name, namespace string) bool {
	s, ok := schemeOf(name)
	return ok && s.namespace == namespace
}

// Verify reports whether signature is address's over message under the strict
// profile of spec requests §3: a pure function of its arguments, the same on
// every node. An unknown scheme or network is false. For eip712 the message is
// the 66 bytes that EIP-712 hashes (Grammar.Message); for all others the text.
//
// A signature is not unique (trap 11): never take it for an id.
func Verify(name, network, address string, message []byte, signature string, x Extras) bool {
	s, ok := schemeOf(name)
	return ok && s.verify(request{network, address, message, signature, x})
}

// VerifySigner is Verify for a request's Signer: the scheme has to fit its
// namespace, and its chain names the network.
func VerifySigner(name string, signer CAIP10, message []byte, signature string, x Extras) bool {
	return SchemeFits(name, signer.Namespace) &&
		Verify(name, signer.Network(), signer.Address, message, signature, x)
}
