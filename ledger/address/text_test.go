package address

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	mainnetBTC = "bip122:000000000019d6689c085ae165831e93"
	regtestBTC = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"
)

func testGrammar() *Grammar {
	return &Grammar{
		Brand:  "coffer.example",
		Chains: []string{mainnetBTC, "eip155:1"},
		Pools: map[string]Asset{
			"usdt.eth": {"USDT", 6, "eip155:1"},
			"btc":      {"BTC", 8, mainnetBTC},
			"eth":      {"ETH", 18, "eip155:1"},
		},
	}
}

// borrowText is the example of requests §1.
const borrowText = `coffer.example asks you to authorise this request

Action: Borrow
Amount: 15000.000000 USDT
Pool: usdt.eth
To: eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F
Max fee: 2.500000 USDT
Account: 5f0c9a1e7b3d2c445f0c9a1e7b3d2c44
Signer: bip122:000000000019d6689c085ae165831e93:bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l
Cluster: coffer-main-1/9b1de84c60f2a7735a41c0d7e2f86b19
Nonce: 42
Expires: 2026-11-21T02:10:00Z`

// borrowETH is borrowText in an asset of 18 decimals.
func borrowETH(amount string) string {
	return strings.NewReplacer("15000.000000 USDT", amount+" ETH", "usdt.eth", "eth",
		"2.500000 USDT", "0.000000000000000001 ETH").Replace(borrowText)
}

// texts is testdata/requests.txt: one text for each action, and more, which the
// SDK renders as well. Texts are parted by a line of "---".
func texts(t testing.TB) []string {
	t.Helper()
	raw, err := os.ReadFile("testdata/requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n---\n")
}

func TestParseBorrow(t *testing.T) {
	g := testGrammar()
	c, err := g.Parse(borrowText)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ParseCAIP10(mainnetBTC + ":bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l")
	if err != nil {
		t.Fatal(err)
	}
	want := Command{
		Action: ActionBorrow, Amount: g.Amount("usdt.eth", "15000000000"), Pool: "usdt.eth",
		To:     CAIP10{"eip155", "1", "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"},
		MaxFee: g.Amount("usdt.eth", "2500000"), Account: [16]byte(unhex(t, "5f0c9a1e7b3d2c445f0c9a1e7b3d2c44")),
		Signer: signer, Cluster: "coffer-main-1/9b1de84c60f2a7735a41c0d7e2f86b19", Nonce: 42,
		Expires: time.Date(2026, 11, 21, 2, 10, 0, 0, time.UTC).Unix(),
	}
	if *c != want {
		t.Errorf("parsed %+v, want %+v", *c, want)
	}
}

// Every action's text is in the file, parses and renders to itself.
func TestEveryAction(t *testing.T) {
	g := testGrammar()
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, a := range table {
		missing[a.name] = true
	}
	for i, text := range texts(t) {
		c, err := g.Parse(text)
		if err != nil {
			t.Errorf("text %d: %v\n%s", i, err, text)
			continue
		}
		if g.Render(c) != text {
			t.Errorf("text %d renders as\n%s", i, g.Render(c))
		}
		delete(missing, c.Action)
	}
	for a := range missing {
		t.Errorf("no text for %s", a)
	}
}

// Another way to write the same command is no command.
func TestParseRefuses(t *testing.T) {
	g := testGrammar()
	sub := func(old, new string) string {
		if strings.Count(borrowText, old) == 0 {
			t.Fatalf("%q is not in the text", old)
		}
		return strings.Replace(borrowText, old, new, 1)
	}
	for name, text := range map[string]string{
		"empty":                  "",
		"trailing LF":            borrowText + "\n",
		"trailing space":         borrowText + " ",
		"space before LF":        sub("Borrow\n", "Borrow \n"),
		"CRLF":                   strings.ReplaceAll(borrowText, "\n", "\r\n"),
		"tab":                    sub("Action: ", "Action:\t"),
		"leading space":          " " + borrowText,
		"hex":                    "0x" + borrowText,
		"other brand":            sub("coffer.example", "coffer.exampl3"),
		"no empty line":          sub("\n\n", "\n"),
		"two empty lines":        sub("\n\n", "\n\n\n"),
		"unknown action":         sub("Borrow", "Lend"),
		"lower-case action":      sub("Borrow", "borrow"),
		"Cyrillic letter":        sub("Borrow", "B\u043errow"),
		"lower-case key":         sub("Nonce", "nonce"),
		"doubled key":            sub("Nonce: 42", "Nonce: 42\nNonce: 42"),
		"missing key":            sub("Nonce: 42\n", ""),
		"swapped keys":           sub("Pool: usdt.eth\nTo: eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F", "To: eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F\nPool: usdt.eth"),
		"two spaces":             sub("Nonce: 42", "Nonce:  42"),
		"more decimals":          sub("15000.000000", "15000.0000000"),
		"fewer decimals":         sub("15000.000000", "15000.00"),
		"no decimals":            sub("15000.000000", "15000"),
		"leading zero":           sub("15000.", "015000."),
		"no whole part":          sub("15000.", "."),
		"plus":                   sub("15000.", "+15000."),
		"minus":                  sub("15000.", "-15000."),
		"separator":              sub("15000.", "15,000."),
		"underscore":             sub("15000.", "15_000."),
		"exponent":               sub("15000.000000", "15e3.000000"),
		"2^128":                  borrowETH("340282366920938463463.374607431768211456"),
		"31 whole digits":        sub("15000.", strings.Repeat("1", 31)+"."),
		"100 000 digits":         sub("15000.", strings.Repeat("1", 100_000)+"."),
		"other symbol":           sub("15000.000000 USDT", "15000.000000 USDC"),
		"lower-case symbol":      sub("15000.000000 USDT", "15000.000000 usdt"),
		"fee in other symbol":    sub("2.500000 USDT", "2.500000 BTC"),
		"fee with more decimals": sub("2.500000 USDT", "2.50000000 USDT"),
		"max where none is":      sub("15000.000000 USDT", "max USDT"),
		"max fee max":            sub("2.500000 USDT", "max USDT"),
		"upper-case pool":        sub("Pool: usdt.eth", "Pool: USDT.eth"),
		"pool with dot first":    sub("Pool: usdt.eth", "Pool: .usdt"),
		"pool of 33":             sub("Pool: usdt.eth", "Pool: "+strings.Repeat("a", 33)),
		"account upper case":     sub("5f0c9a1e", "5F0c9a1e"),
		"account short":          sub("5f0c9a1e", "5f0c9a1"),
		"signer upper case":      sub("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", "BC1Q9VZA2E8X573NCZRLZMS0WVX3GSQJX7VAVGKX0L"),
		"signer of testnet":      sub("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", "tb1q5drc32dx9c0s44nl9jmj49td0ztqvtr6e0j75h"),
		"signer P2A":             sub("bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", "bc1pfeessrawgf"),
		"signer chain unlisted":  sub("Signer: "+mainnetBTC+":bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", "Signer: "+regtestBTC+":bcrt1q0mtevefynqsh8lz2pcuhuavmgty9rmqrnw000r"),
		"To no CAIP-10":          sub("To: eip155:1:", "To: "),
		"To with a space":        sub("eip155:1:0x71", "eip155:1: 0x71"),
		"cluster without hash":   sub("/9b1de84c60f2a7735a41c0d7e2f86b19", ""),
		"cluster hash short":     sub("/9b1de84c60f2a7735a41c0d7e2f86b19", "/9b1de84c60f2a773"),
		"cluster of 25":          sub("coffer-main-1", strings.Repeat("c", 25)),
		"nonce leading zero":     sub("Nonce: 42", "Nonce: 042"),
		"nonce of 20 digits":     sub("Nonce: 42", "Nonce: 10000000000000000000"),
		"nonce negative":         sub("Nonce: 42", "Nonce: -1"),
		"offset":                 sub("02:10:00Z", "02:10:00+00:00"),
		"small z":                sub("02:10:00Z", "02:10:00z"),
		"fraction":               sub("02:10:00Z", "02:10:00.0Z"),
		"second 60":              sub("02:10:00Z", "02:10:60Z"),
		"hour 24":                sub("T02:10", "T24:10"),
		"31 November":            sub("11-21", "11-31"),
		"no leap year":           sub("2026-11-21", "2026-02-29"),
		"month 0":                sub("2026-11-21", "2026-00-21"),
		"before 1970":            sub("2026-11-21", "1969-12-31"),
		"long":                   strings.Repeat("a", MaxText+1),
	} {
		if c, err := g.Parse(text); !errors.Is(err, ErrMalformed) || c != nil {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// What is well-formed is for the ledger to judge: zero, a pool or cluster that
// it does not know.
func TestParseLeavesToTheLedger(t *testing.T) {
	g := testGrammar()
	for old, x := range map[string]struct{ new, units string }{
		"15000.000000 USDT": {"0.000000 USDT", "0"},
		"Pool: usdt.eth":    {"Pool: doge", "15000000000"},
		"coffer-main-1":     {"another", "15000000000"},
	} {
		text := strings.Replace(borrowText, old, x.new, 1)
		c, err := g.Parse(text)
		if err != nil || c.Amount.Units != x.units || g.Render(c) != text {
			t.Errorf("%s: %+v, %v", x.new, c, err)
		}
	}
}

// The largest amount is 2¹²⁸-1; the next is malformed (TestParseRefuses).
func TestLargestAmount(t *testing.T) {
	c, err := testGrammar().Parse(borrowETH("340282366920938463463.374607431768211455"))
	if err != nil || c.Amount.Units != "340282366920938463463374607431768211455" {
		t.Errorf("%+v, %v", c, err)
	}
}

// The size is refused where nothing else is wrong with the text.
func TestTextTooLong(t *testing.T) {
	g := testGrammar()
	amount := Amount{Units: "1" + strings.Repeat("0", 38), Symbol: "ABCDEFGHIJ", Decimals: 30}
	far := CAIP10{"cosmosab", strings.Repeat("r", 32), strings.Repeat("a", 128)}
	signer, err := ParseCAIP10(mainnetBTC + ":bc1qp0ahvfh83088w49k405szqgg4f3pptr7p2g06tdxfjcd40z4lh4q95lsz9")
	if err != nil {
		t.Fatal(err)
	}
	c := &Command{
		Action: ActionOpenLoan, Collateral: amount, CollateralPool: strings.Repeat("c", 32), Amount: amount,
		Pool: strings.Repeat("p", 32), To: far, MaxFee: amount, RefundTo: far, Signer: signer,
		Cluster: strings.Repeat("k", 24) + "/9b1de84c60f2a7735a41c0d7e2f86b19", Nonce: 9999999999999999999,
	}
	c.Account = LoanID(c.Cluster, signer, c.Nonce)
	for brand, want := range map[string]error{"coffer": ErrDestination, strings.Repeat("b", 64): ErrMalformed} {
		g.Brand = brand
		text := g.Render(c)
		if _, err := g.Parse(text); !errors.Is(err, want) || (len(text) > MaxText) != (want == ErrMalformed) {
			t.Errorf("%d bytes: %v, want %v", len(text), err, want)
		}
	}
}

// A destination is refused by name, with the Command, since the nonce has to be
// consumed (spec: lending §5).
func TestParseRefusesDestination(t *testing.T) {
	g := testGrammar()
	const to = "eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F"
	for name, other := range map[string]string{
		"other network":    "eip155:5:0x71C7656EC7ab88b098defB751B7401B5f6d8976F",
		"other chain":      mainnetBTC + ":bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l",
		"unlisted Bitcoin": regtestBTC + ":bcrt1q0mtevefynqsh8lz2pcuhuavmgty9rmqrnw000r",
		"lower case":       "eip155:1:0x71c7656ec7ab88b098defb751b7401b5f6d8976f",
		"zero":             "eip155:1:0x0000000000000000000000000000000000000000",
		"garbage":          "eip155:1:x",
	} {
		text := strings.Replace(borrowText, to, other, 1)
		c, err := g.Parse(text)
		if !errors.Is(err, ErrDestination) || errors.Is(err, ErrMalformed) || c == nil || g.Render(c) != text {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	withdraw := strings.NewReplacer("Borrow", "Withdraw", "15000.000000 USDT", "max BTC", "2.500000 USDT", "0.00010000 BTC",
		"usdt.eth", "btc", to, mainnetBTC+":tb1q5drc32dx9c0s44nl9jmj49td0ztqvtr6e0j75h").Replace(borrowText)
	if _, err := g.Parse(withdraw); !errors.Is(err, ErrDestination) {
		t.Errorf("testnet address on mainnet: %v", err)
	}
	both := strings.Replace(strings.Replace(borrowText, to, "eip155:5:0x1", 1), "2.500000 USDT", "2.5 USDT", 1)
	if c, err := g.Parse(both); !errors.Is(err, ErrMalformed) || c != nil {
		t.Errorf("malformed and refused: %v", err)
	}
}

// A wallet may be on a chain without coins here; what coins go to may not.
func TestWalletChains(t *testing.T) {
	const chain, addr = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "GWLHBhSkCbvjj7fX6SGgpCk6MZPvrawNj3ZRzuonE98K"
	g := testGrammar()
	signed := strings.Replace(borrowText, mainnetBTC+":bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", chain+":"+addr, 1)
	paid := strings.Replace(borrowText, "eip155:1:0x71C7656EC7ab88b098defB751B7401B5f6d8976F", chain+":"+addr, 1)
	if _, err := g.Parse(signed); !errors.Is(err, ErrMalformed) {
		t.Errorf("signer on no listed chain: %v", err)
	}
	g.Wallets = []string{chain}
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	if c, err := g.Parse(signed); err != nil || c.Signer.Address != addr {
		t.Errorf("signer on a chain for wallets: %v", err)
	}
	if c, err := g.Parse(paid); !errors.Is(err, ErrDestination) || c == nil {
		t.Errorf("coins to a chain for wallets: %v", err)
	}
	payee := *must(t, g, signed)
	payee.Action, payee.To = ActionAddPayoutAddress, payee.Signer
	if _, err := g.Parse(g.Render(&payee)); !errors.Is(err, ErrDestination) {
		t.Errorf("a payout address on a chain for wallets: %v", err)
	}
}

func must(t *testing.T, g *Grammar, text string) *Command {
	t.Helper()
	c, err := g.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenAccountIsTheSignersOwn(t *testing.T) {
	g := testGrammar()
	signer := CAIP10{"eip155", "1", "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"}
	c := &Command{Action: ActionOpenAccount, Signer: signer, Cluster: "coffer-main-1/9b1de84c60f2a7735a41c0d7e2f86b19", Expires: 1}
	c.Account = AccountID(c.Cluster, signer)
	if _, err := g.Parse(g.Render(c)); err != nil {
		t.Fatal(err)
	}
	c.Account = AccountID("coffer-main-2/9b1de84c60f2a7735a41c0d7e2f86b19", signer)
	if _, err := g.Parse(g.Render(c)); !errors.Is(err, ErrMalformed) {
		t.Errorf("another cluster's account: %v", err)
	}
}

// "Account id of a simple loan: the first 16 bytes of sha256 over cluster, signer
// and the nonce in decimal": one wallet opens many, each in its own name.
func TestOpenLoanIsTheSignersOwn(t *testing.T) {
	g := testGrammar()
	for _, text := range texts(t) {
		c, err := g.Parse(text)
		if err != nil || c.Action != ActionOpenLoan {
			continue
		}
		if c.Account != LoanID(c.Cluster, c.Signer, c.Nonce) {
			t.Fatal("the shared text is not its signer's own")
		}
		for name, spoil := range map[string]func(*Command){
			"nonce": func(c *Command) { c.Nonce++ }, "account": func(c *Command) { c.Account[15]++ },
			"cluster": func(c *Command) { c.Cluster = "x" + c.Cluster }, "plain": func(c *Command) { c.Account = AccountID(c.Cluster, c.Signer) },
		} {
			other := *c
			spoil(&other)
			if _, err := g.Parse(g.Render(&other)); !errors.Is(err, ErrMalformed) {
				t.Errorf("another %s: %v", name, err)
			}
		}
		return
	}
	t.Fatal("no text opens a loan")
}

// A text has no field for what a Command of its action does not use, and
// nonsense in a Command becomes no text.
func TestRenderOfNonsenseDoesNotParse(t *testing.T) {
	g := testGrammar()
	for name, spoil := range map[string]func(*Command){
		"action":   func(c *Command) { c.Action = "Borrow\nAmount" },
		"units":    func(c *Command) { c.Amount.Units = "-1" },
		"symbol":   func(c *Command) { c.Amount.Symbol = "USDT\nPool: x" },
		"pool":     func(c *Command) { c.Pool = "" },
		"expires":  func(c *Command) { c.Expires = -1 },
		"far":      func(c *Command) { c.Expires = maxUnix + 1 },
		"nonce":    func(c *Command) { c.Nonce = 1<<64 - 1 },
		"cluster":  func(c *Command) { c.Cluster = "a b/9b1de84c60f2a7735a41c0d7e2f86b19" },
		"no units": func(c *Command) { c.Amount = Amount{} },
	} {
		c, err := g.Parse(borrowText)
		if err != nil {
			t.Fatal(err)
		}
		spoil(c)
		if _, err := g.Parse(g.Render(c)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGrammarValidate(t *testing.T) {
	for name, spoil := range map[string]func(*Grammar){
		"no brand":       func(g *Grammar) { g.Brand = "" },
		"hex brand":      func(g *Grammar) { g.Brand = "0xcoffer" },
		"brand with LF":  func(g *Grammar) { g.Brand = "a\nb" },
		"chain":          func(g *Grammar) { g.Chains[1] = "eip155" },
		"pool name":      func(g *Grammar) { g.Pools["BTC"] = g.Pools["btc"] },
		"symbol":         func(g *Grammar) { g.Pools["x"] = Asset{"b", 8, mainnetBTC} },
		"decimals":       func(g *Grammar) { g.Pools["x"] = Asset{"BTC", 31, mainnetBTC} },
		"unlisted chain": func(g *Grammar) { g.Pools["x"] = Asset{"BTC", 8, regtestBTC} },
	} {
		g := testGrammar()
		spoil(g)
		if g.Validate() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// The hand-written calendar is package time's.
func TestCalendar(t *testing.T) {
	at := []int64{0, 1, maxUnix, maxUnix - 1, 951782399, 951782400, 951868800, 4107542399, 4107542400}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		at = append(at, random.Int64N(maxUnix+1))
	}
	for _, unix := range at {
		want := time.Unix(unix, 0).UTC().Format(time.RFC3339)
		if got := formatTime(unix); got != want {
			t.Fatalf("%d is %s, want %s", unix, got, want)
		}
		if back, ok := parseTime(want); !ok || back != unix {
			t.Fatalf("%s is %d, want %d", want, back, unix)
		}
	}
}

// Whatever Parse accepts, Render returns byte for byte (requests §1.1).
func FuzzParse(f *testing.F) {
	for _, text := range append(texts(f), borrowText) {
		f.Add(text)
	}
	g := testGrammar()
	by := CAIP10{NamespaceEthereum, "1", "0x71C7656EC7ab88b098defB751B7401B5f6d8976F"}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := g.Parse(text)
		if (c == nil) != errors.Is(err, ErrMalformed) || err != nil && c != nil && !errors.Is(err, ErrDestination) {
			t.Fatalf("command %v with error %v", c, err)
		}
		if c == nil {
			return
		}
		if got := g.Render(c); got != text {
			t.Fatalf("accepted\n%q\nrenders as\n%q", text, got)
		}
		if len(text) > MaxText || strings.HasPrefix(text, "0x") || strings.Contains(text, " \n") ||
			strings.HasSuffix(text, " ") || strings.HasSuffix(text, "\n") || !printable(strings.ReplaceAll(text, "\n", "")) {
			t.Fatalf("accepted %q", text)
		}
		again, errAgain := g.Parse(text)
		if again == nil || *again != *c || (errAgain == nil) != (err == nil) {
			t.Fatalf("%q: another answer the second time: %+v, %v", text, again, errAgain)
		}
		// As fields it says the same: the JSON and the bytes to be signed agree.
		doc, ok := g.TypedData(by, c)
		message, okToo := g.Message(SchemeEIP712, by, c)
		read, err := typedDataMessage(doc)
		if !ok || !okToo || err != nil || !bytes.Equal(read, message) {
			t.Fatalf("%q: typed data %s, %v", text, doc, err)
		}
	})
}
