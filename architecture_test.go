package coffer_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/coffer-network/coffer/"

// rooms is the table of DESIGN.md §2: what of ours each package's own code may
// import. An entry speaks for the folders below it that have none themselves;
// "x/..." means x and everything below.
var rooms = []struct {
	dir  string
	may  []string
	why  string
	from []string // who alone may import it; nil: whose own row says so
}{
	{"ledger/fixed", nil, "checked arithmetic is the floor of everything", nil},
	{"ledger/address", nil, "addresses and signatures are pure functions of bytes", nil},
	{"ledger", []string{"ledger/fixed", "ledger/address"}, "a replica that asked another room would decide by something that is not in the log", nil},
	{"consensus/raftlog", nil, "a log store stores bytes and must not know what they mean", nil},
	{"consensus/raftbench", []string{"consensus/raftlog"}, "raft alone is measured without what is built on it", []string{"testnet"}},
	{"consensus/malice", nil, "a leader that lies rewrites raft's requests and knows nothing above them", []string{"consensus", "node"}},
	{"consensus", []string{"ledger/...", "consensus/..."}, "ordering must not know chains, KeyShares or transports, so that raft can be replaced", nil},
	{"tss/keystore", nil, "what holds KeyShares stays small enough to be read whole", nil},
	{"tss/child", nil, "what starts and kills processes knows nothing of keys or sessions", []string{"tss"}},
	{"tss", []string{"tss/..."}, "a session is given everything in its request: whoever reads tss need not read the ledger", nil},
	{"chains/internal", []string{"chains", "chains/internal/...", "ledger/..."}, "what adapters share knows no adapter", nil},
	{"chains/bitcoin", []string{"chains", "chains/internal/...", "ledger/..."}, "an adapter that imported another could not be added or dropped alone", nil},
	{"chains/ethereum", []string{"chains", "chains/internal/...", "ledger/..."}, "an adapter that imported another could not be added or dropped alone", nil},
	{"chains/chaintest", []string{"chains", "chains/internal/...", "ledger/..."}, "the contract must not favour one adapter", nil},
	{"chains", []string{"ledger/..."}, "the interface belongs to no adapter, session or node", nil},
	{"node/p2p", nil, "transport carries bytes: it must not be able to act on them", nil},
	{"node/venues", []string{"ledger/fixed"}, "a market is asked for a price: what is done with it is none of its business", nil},
	{"node/alert", []string{"ledger/...", "node/api/history"}, "what posts to addresses outside must not be able to reach KeyShares, peers or the log", nil},
	{"node/api", []string{"ledger/...", "node/api/..."}, "the API declares the small interfaces it needs, so that it can be tested without a cluster", nil},
	{"node", []string{"node/...", "consensus/...", "tss/...", "chains/...", "ledger/..."}, "composition: every room meets here and nowhere else", []string{"node", "cmd", "testnet"}},
	{"testnet", []string{"testnet/...", "node/...", "consensus/...", "tss/...", "chains/...", "ledger/..."}, "tools for trying things must never be under what runs in earnest", []string{"cmd", "testnet"}},
	{"testnet/rpcproxy", nil, "a node that misbehaves serves the tests of every adapter, and knows none", []string{"testnet", "cmd", "chains", "node"}},
	{"cmd", []string{"cmd/...", "testnet/...", "node/...", "tss/...", "ledger/..."}, "flags, config and exit codes, no logic", []string{"cmd"}},
}

// libraries of others that only some packages may import. Tests count too,
// unless the package of the test is named in tests.
var libraries = []struct {
	prefix string
	only   []string
	tests  []string
	why    string
}{
	{"github.com/hashicorp/raft", []string{"consensus", "consensus/malice", "consensus/raftbench", "consensus/raftlog", "node/p2p"}, nil, "the engine below the log can change only while nobody else sees its types (spec: consensus §11)"},
	{"github.com/libp2p/go-libp2p", []string{"node/p2p"}, nil, "one host, one allow-list"},
	{"github.com/bnb-chain/tss-lib/v2/ecdsa/keygen", []string{"tss", "tss/preparams", "tss/tsstest", "node", "testnet"}, nil, "pre-parameters pass from their maker to the keystore through the node, and through the benchmark"},
	{"github.com/bnb-chain/tss-lib", []string{"tss", "tss/preparams", "tss/tsstest"}, nil, "nothing reaches the library around the guard"},
	{"github.com/dgraph-io/badger", []string{"consensus/raftlog", "tss/keystore"}, []string{"consensus"}, "two stores with two promises about the disk"},
	{"github.com/ethereum/go-ethereum", []string{"chains/ethereum", "testnet"}, []string{"testnet/cluster"}, "its signature code differs with cgo, and it is slow to link: one adapter and the testnet's own node"},
	{"github.com/holiman/uint256", []string{"ledger/fixed"}, nil, "unchecked 256-bit arithmetic wraps"},
	{"filippo.io/age", []string{"node", "cmd/coffer"}, []string{"testnet/cluster"}, "backups alone: the keystore has its own form"},
	{"github.com/gagliardetto/solana-go", []string{"chains/solana"}, []string{"tss"}, "one adapter"},
}

// pure are the packages that every replica must compute alike.
var pure = []string{"ledger", "ledger/fixed", "ledger/address"}

// impure imports, each with what it would let into Apply. An entry ending in /
// means everything below.
var impure = map[string]string{
	"time": "a clock", "math/rand": "chance", "math/rand/": "chance", "crypto/rand": "chance", "hash/maphash": "a seed per process",
	"os": "files and environment", "os/": "files and environment", "io/fs": "files", "io/ioutil": "files", "path/filepath": "the platform's paths",
	"embed": "files", "syscall": "the system", "net": "the network", "net/": "the network", "runtime": "the scheduler", "runtime/": "the scheduler",
	"sync": "goroutines", "sync/": "goroutines", "context": "deadlines", "log": "logging", "log/": "logging", "testing": "test code",
	"unsafe": "memory addresses", "plugin": "code", "math": "floats", "math/cmplx": "floats", "unique": "memory addresses", "weak": "the collector",
	"expvar": "global state", "flag": "the command line", "html/template": "nothing a ledger needs", "text/template": "nothing a ledger needs",
}

// topLevel is what the repository holds. A folder is added only for a second
// implementation or a second reader.
var topLevel = []string{
	".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "architecture_test.go", "chains", "cmd", "consensus",
	"go.mod", "go.sum", "ledger", "node", "testnet", "tss",
}

// weakening are names of tss-lib that switch proofs off or change a process-wide
// curve under running sessions.
var weakening = []string{"SetNoProofMod", "SetNoProofFac", "SetCurve"}

// source is one Go file of the repository.
type source struct {
	path string // slash-separated, from the root
	ast  *ast.File
	fset *token.FileSet
}

func (f source) dir() string { return path.Dir(f.path) }
func (f source) test() bool  { return strings.HasSuffix(f.path, "_test.go") }
func (f source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}

// violation is a broken rule with the reason of the rule.
type violation struct{ rule, where, what, why string }

func (v violation) String() string {
	return fmt.Sprintf("%s: %s (%s)\n\treason: %s", v.where, v.what, v.rule, v.why)
}

// The rules, one function each over all files.
var rules = map[string]func([]source) []violation{
	"own imports":  ownImports,
	"who imports":  whoImports,
	"libraries":    libraryImports,
	"pure imports": pureImports,
	"math/big":     bigOnlyForCurves,
	"goroutines":   noGoroutines,
	"map order":    noMapOrder,
	"floats":       noFloats,
	"weakening":    noWeakening,
}

func TestArchitecture(t *testing.T) {
	files := repository(t)
	if len(files) < 50 {
		t.Fatalf("%d files: the test looks at the wrong place", len(files))
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, v := range rule(files) {
				t.Error(v)
			}
		})
	}
	t.Run("top level", func(t *testing.T) {
		for _, v := range onlyTopLevel(tracked(t)) {
			t.Error(v)
		}
	})
}

// Every rule is shown to fire on a planted mistake and to be silent about its
// honest neighbour.
func TestArchitectureRulesFire(t *testing.T) {
	proven := map[string]bool{}
	for _, p := range []struct {
		rule, path, src string
		hits            int
	}{
		{"own imports", "ledger/x.go", `import "~/chains"`, 1},
		{"own imports", "ledger/x.go", `import "~/ledger/fixed"`, 0},
		{"own imports", "ledger/fixed/x.go", `import "~/ledger"`, 1},
		{"own imports", "ledger/address/x.go", `import "~/ledger/fixed"`, 1},
		{"own imports", "consensus/x.go", `import "~/tss"`, 1},
		{"own imports", "consensus/x.go", `import "~/consensus/raftlog"`, 0},
		{"own imports", "consensus/raftlog/x.go", `import "~/ledger"`, 1},
		{"own imports", "tss/x.go", `import "~/ledger"`, 1},
		{"own imports", "tss/preparams/x.go", `import "~/ledger/fixed"`, 1},
		{"own imports", "tss/keystore/x.go", `import "~/tss"`, 1},
		{"own imports", "chains/bitcoin/x.go", `import "~/chains/ethereum"`, 1},
		{"own imports", "chains/bitcoin/x.go", `import "~/chains/internal/follow"`, 0},
		{"own imports", "chains/internal/follow/x.go", `import "~/chains/bitcoin"`, 1},
		{"own imports", "chains/x.go", `import "~/node"`, 1},
		{"own imports", "node/p2p/x.go", `import "~/ledger"`, 1},
		{"own imports", "node/api/client/x.go", `import "~/consensus"`, 1},
		{"own imports", "node/x.go", `import "~/testnet"`, 1},
		{"own imports", "elsewhere/x.go", `import "fmt"`, 1},
		{"who imports", "consensus/x_test.go", `import "~/node"`, 1},
		{"who imports", "consensus/x_test.go", `import "~/node/p2p"`, 0},
		{"who imports", "node/x_test.go", `import "~/testnet"`, 1},
		{"who imports", "chains/bitcoin/x_test.go", `import "~/chains/ethereum"`, 1},
		{"who imports", "chains/bitcoin/x_test.go", `import "~/testnet"`, 1},
		{"who imports", "chains/bitcoin/x_test.go", `import "~/testnet/rpcproxy"`, 0},
		{"own imports", "chains/bitcoin/x.go", `import "~/testnet/rpcproxy"`, 1},
		{"own imports", "testnet/rpcproxy/x.go", `import "~/chains"`, 1},
		{"who imports", "testnet/sim/x.go", `import ("~/node"; "~/testnet")`, 0},
		{"libraries", "node/x.go", `import "github.com/hashicorp/raft"`, 1},
		{"libraries", "node/x_test.go", `import "github.com/hashicorp/raft"`, 1},
		{"libraries", "consensus/x.go", `import "github.com/hashicorp/raft"`, 0},
		{"libraries", "node/x.go", `import "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"`, 1},
		{"libraries", "node/x.go", `import "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"`, 0},
		{"libraries", "ledger/x.go", `import "github.com/holiman/uint256"`, 1},
		{"libraries", "ledger/address/x.go", `import "github.com/ethereum/go-ethereum/crypto"`, 1},
		{"libraries", "consensus/x.go", `import "github.com/libp2p/go-libp2p/core/peer"`, 1},
		{"libraries", "node/x.go", `import "github.com/dgraph-io/badger/v4"`, 1},
		{"pure imports", "ledger/x.go", `import "time"`, 1},
		{"pure imports", "ledger/x.go", `import ("math/rand/v2"; "crypto/rand"; "os"; "net/http"; "log/slog"; "context"; "sync/atomic")`, 7},
		{"pure imports", "ledger/x_test.go", `import "time"`, 0},
		{"pure imports", "node/x.go", `import "time"`, 0},
		{"pure imports", "ledger/x.go", `import "math/bits"`, 0},
		{"math/big", "ledger/x.go", `import "math/big"`, 1},
		{"math/big", "ledger/fixed/x.go", `import "math/big"`, 1},
		{"math/big", "ledger/address/x.go", `import "math/big"`, 0},
		{"goroutines", "ledger/x.go", `func f() { go f() }`, 1},
		{"goroutines", "ledger/x.go", `func f(c chan int) { select { case c <- 1: default: } }`, 3},
		{"goroutines", "node/x.go", `func f() { go f() }`, 0},
		{"map order", "ledger/x.go", `func f(m map[string]int) { for range m {} }`, 1},
		{"map order", "ledger/x.go", `type t map[string]int; func (m t) f() { for k := range m { _ = k } }`, 1},
		{"map order", "ledger/x.go", `import "maps"; func f(m map[string]int) { for k := range maps.Keys(m) { _ = k } }`, 1},
		{"map order", "ledger/x.go", `import ("maps"; "slices"); func f(m map[string]int) { _ = slices.Collect(maps.Keys(m)) }`, 1},
		{"map order", "ledger/x.go", `import ("maps"; "slices"); func f(m map[string]int) { for range slices.Sorted(maps.Keys(m)) {} }`, 0},
		{"map order", "ledger/x.go", `func f[M map[string]int](m M) { for range m {} }`, 1},
		{"map order", "ledger/x.go", `func f(m []int, n int, s string) { for range m {}; for range n {}; for range s {} }`, 0},
		{"map order", "ledger/x.go", `func f() { for range unknown() {} }`, 1},
		{"floats", "ledger/x.go", `func f(a float64) {}`, 1},
		{"floats", "ledger/x.go", `const half = 0.5`, 1},
		{"floats", "ledger/x.go", `type f = complex128`, 1},
		{"floats", "ledger/x.go", `func f(a int) int { return a / 2 }`, 0},
		{"weakening", "tss/x.go", `func f(p interface{ SetNoProofMod() }) { p.SetNoProofMod() }`, 2},
		{"weakening", "testnet/x_test.go", `func f() { tss.SetCurve(nil) }`, 1},
	} {
		src := "package " + path.Base(path.Dir(p.path)) + "; " + strings.ReplaceAll(p.src, "~/", module)
		got := rules[p.rule]([]source{parse(t, token.NewFileSet(), p.path, src)})
		if len(got) != p.hits {
			t.Errorf("%s: %s in %s: %d violations, want %d: %v", p.rule, p.src, p.path, len(got), p.hits, got)
		}
		for _, v := range got {
			if v.why == "" || v.rule != p.rule {
				t.Errorf("%s: a violation without its rule and reason: %v", p.rule, v)
			}
			proven[p.rule] = true
		}
	}
	for name := range rules {
		if !proven[name] {
			t.Errorf("rule %q was never seen to fire", name)
		}
	}
	if got := onlyTopLevel(append(slices.Clone(topLevel), "util", "Makefile")); len(got) != 2 {
		t.Errorf("two strangers at the top level: %v", got)
	}
}

// ownImports: a package's own code imports of ours only what its row allows.
func ownImports(files []source) []violation {
	var vs []violation
	for _, f := range files {
		if f.test() {
			continue
		}
		i := roomOf(f.dir())
		if i < 0 {
			if f.dir() != "." {
				vs = append(vs, violation{"own imports", f.path, "is in no room of the table", "what has no row has no rules"})
			}
			continue
		}
		r := rooms[i]
		for _, imp := range f.ast.Imports {
			ours, ok := strings.CutPrefix(importPath(imp), module)
			if ok && ours != f.dir() && !slices.ContainsFunc(r.may, func(m string) bool { return covers(m, ours) }) {
				vs = append(vs, violation{"own imports", f.at(imp), r.dir + " imports " + ours, r.why})
			}
		}
	}
	return vs
}

// whoImports: some rooms are imported by few, tests included, and no adapter
// by another.
func whoImports(files []source) []violation {
	var vs []violation
	for _, f := range files {
		for _, imp := range f.ast.Imports {
			ours, ok := strings.CutPrefix(importPath(imp), module)
			if !ok {
				continue
			}
			i := roomOf(ours)
			if i < 0 || ours == f.dir() {
				continue
			}
			r := rooms[i]
			if r.from != nil && f.dir() != "." && !slices.ContainsFunc(r.from, func(m string) bool { return covers(m+"/...", f.dir()) }) {
				vs = append(vs, violation{"who imports", f.at(imp), f.dir() + " imports " + ours, r.why})
			}
			if adapter(ours) != "" && adapter(f.dir()) != "" && adapter(ours) != adapter(f.dir()) {
				vs = append(vs, violation{"who imports", f.at(imp), f.dir() + " imports " + ours, r.why})
			}
		}
	}
	return vs
}

// adapter is the chain of an adapter's folder, "" elsewhere.
func adapter(dir string) string {
	name, ok := strings.CutPrefix(dir, "chains/")
	if name, _, _ = strings.Cut(name, "/"); !ok || name == "internal" || name == "chaintest" {
		return ""
	}
	return name
}

func libraryImports(files []source) []violation {
	var vs []violation
	for _, f := range files {
		for _, imp := range f.ast.Imports {
			for _, l := range libraries { // the first row that fits speaks
				if p := importPath(imp); p != l.prefix && !strings.HasPrefix(p, l.prefix+"/") {
					continue
				}
				if !slices.Contains(l.only, f.dir()) && !(f.test() && slices.Contains(l.tests, f.dir())) {
					vs = append(vs, violation{"libraries", f.at(imp), f.dir() + " imports " + importPath(imp), l.why})
				}
				break
			}
		}
	}
	return vs
}

func pureImports(files []source) []violation {
	var vs []violation
	for _, f := range pureFiles(files) {
		for _, imp := range f.ast.Imports {
			p := importPath(imp)
			what, bad := impure[p]
			for below := path.Dir(p); !bad && below != "."; below = path.Dir(below) {
				what, bad = impure[below+"/"]
			}
			if bad {
				vs = append(vs, violation{"pure imports", f.at(imp), f.dir() + " imports " + p,
					"Apply must be a function of state and command alone: this lets in " + what})
			}
		}
	}
	return vs
}

func bigOnlyForCurves(files []source) []violation {
	var vs []violation
	for _, f := range pureFiles(files) {
		for _, imp := range f.ast.Imports {
			if importPath(imp) == "math/big" && f.dir() != "ledger/address" {
				vs = append(vs, violation{"math/big", f.at(imp), f.dir() + " imports math/big",
					"amounts are fixed.Int, checked and bounded; big numbers are for the mathematics of curves and digits of text"})
			}
		}
	}
	return vs
}

func noGoroutines(files []source) []violation {
	var vs []violation
	for _, f := range pureFiles(files) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				vs = append(vs, violation{"goroutines", f.at(n), "goroutines or channels in " + f.dir(), "two replicas schedule differently"})
			}
			return true
		})
	}
	return vs
}

// noMapOrder: no loop takes the order of a map. maps.Keys and its like may only
// be given straight to slices.Sorted.
func noMapOrder(files []source) []violation {
	const why = "Go's map order differs from run to run"
	var vs []violation
	for _, p := range packages(pureFiles(files)) {
		info := p.check()
		for _, f := range p.files {
			sorted := map[ast.Node]bool{}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.RangeStmt:
					switch t := info.TypeOf(n.X); {
					case t == nil || t == types.Typ[types.Invalid]:
						vs = append(vs, violation{"map order", f.at(n), "a loop over something of unknown type", why})
					case ordersByMap(t):
						vs = append(vs, violation{"map order", f.at(n), "a loop over " + t.String(), why})
					}
				case *ast.CallExpr:
					if isCall(n, "slices", "Sorted", "SortedFunc", "SortedStableFunc") && len(n.Args) > 0 {
						sorted[n.Args[0]] = true
					}
					if isCall(n, "maps", "Keys", "Values", "All") && !sorted[n] {
						vs = append(vs, violation{"map order", f.at(n), "keys of a map, not sorted", why})
					}
				}
				return true
			})
		}
	}
	return vs
}

// ordersByMap: a map, or a type parameter that could be one.
func ordersByMap(t types.Type) bool {
	p, ok := t.(*types.TypeParam)
	if !ok {
		_, is := t.Underlying().(*types.Map)
		return is
	}
	u, ok := p.Underlying().(*types.Interface)
	for i := 0; ok && i < u.NumEmbeddeds(); i++ {
		switch e := u.EmbeddedType(i).(type) {
		case *types.Union:
			for j := range e.Len() {
				if ordersByMap(e.Term(j).Type()) {
					return true
				}
			}
		default:
			if ordersByMap(e) {
				return true
			}
		}
	}
	return false
}

func noFloats(files []source) []violation {
	var vs []violation
	for _, f := range pureFiles(files) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.FLOAT || n.Kind == token.IMAG {
					vs = append(vs, violation{"floats", f.at(n), "the number " + n.Value, "money and indices are exact integers; floats round by platform"})
				}
			case *ast.Ident:
				if slices.Contains([]string{"float32", "float64", "complex64", "complex128"}, n.Name) {
					vs = append(vs, violation{"floats", f.at(n), "the type " + n.Name, "money and indices are exact integers; floats round by platform"})
				}
			}
			return true
		})
	}
	return vs
}

func noWeakening(files []source) []violation {
	var vs []violation
	for _, f := range files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && slices.Contains(weakening, id.Name) {
				vs = append(vs, violation{"weakening", f.at(n), "names " + id.Name,
					"key shares without these proofs can be stolen by one traitor, and a global curve changes under running sessions (spec: signing §5)"})
			}
			return true
		})
	}
	return vs
}

func onlyTopLevel(names []string) []violation {
	var vs []violation
	for _, n := range names {
		if !slices.Contains(topLevel, n) {
			vs = append(vs, violation{"top level", n, "is not of DESIGN.md §2", "a stranger finds everything in seven folders"})
		}
	}
	return vs
}

// Reading the repository.

func parse(t *testing.T, fset *token.FileSet, name, src string) source {
	t.Helper()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return source{name, f, fset}
}

// repository parses every Go file of the rooms. Nested modules and testdata are
// built apart and are none of ours.
func repository(t *testing.T) []source {
	t.Helper()
	fset := token.NewFileSet()
	var files []source
	for _, top := range topLevel {
		info, err := os.Stat(top)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			continue
		}
		err = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				_, err := os.Stat(filepath.Join(p, "go.mod"))
				if err == nil || d.Name() == "testdata" {
					return fs.SkipDir
				}
				return nil
			}
			if strings.HasSuffix(p, ".go") {
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				files = append(files, parse(t, fset, filepath.ToSlash(p), string(b)))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// tracked is what git knows at the top level; without git, every folder and Go
// file there is.
func tracked(t *testing.T) []string {
	t.Helper()
	var names []string
	if out, err := exec.Command("git", "ls-files", "-z").Output(); err == nil {
		for _, b := range bytes.Split(bytes.TrimRight(out, "\x00"), []byte{0}) {
			top, _, _ := strings.Cut(string(b), "/")
			names = append(names, top)
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".git" && (e.IsDir() || strings.HasSuffix(e.Name(), ".go")) {
			names = append(names, e.Name())
		}
	}
	return names
}

func importPath(s *ast.ImportSpec) string {
	p, _ := strconv.Unquote(s.Path.Value)
	return p
}

// roomOf is the row that speaks for a folder: the longest that it is or is below.
func roomOf(dir string) int {
	best := -1
	for i, r := range rooms {
		if covers(r.dir+"/...", dir) && (best < 0 || len(rooms[best].dir) < len(r.dir)) {
			best = i
		}
	}
	return best
}

func covers(pattern, dir string) bool {
	base, all := strings.CutSuffix(pattern, "/...")
	return dir == base || all && strings.HasPrefix(dir, base+"/")
}

func pureFiles(files []source) []source {
	var out []source
	for _, f := range files {
		if slices.Contains(pure, f.dir()) && !f.test() {
			out = append(out, f)
		}
	}
	return out
}

func isCall(c *ast.CallExpr, pkg string, names ...string) bool {
	fun := c.Fun
	switch x := fun.(type) { // explicit type arguments
	case *ast.IndexExpr:
		fun = x.X
	case *ast.IndexListExpr:
		fun = x.X
	}
	s, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg && slices.Contains(names, s.Sel.Name)
}

// pkg is the non-test files of one pure package.
type pkg struct {
	dir   string
	files []source
}

func packages(files []source) []pkg {
	var ps []pkg
	for _, f := range files {
		i := slices.IndexFunc(ps, func(p pkg) bool { return p.dir == f.dir() })
		if i < 0 {
			ps = append(ps, pkg{dir: f.dir()})
			i = len(ps) - 1
		}
		ps[i].files = append(ps[i].files, f)
	}
	return ps
}

// check types a package as far as it can. What stays unknown is reported by
// whoever asks for its type.
func (p pkg) check() *types.Info {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	fset := p.files[0].fset // of all: positions of types come from it
	conf := types.Config{Importer: exports(fset), Error: func(error) {}, DisableUnusedImportCheck: true}
	asts := make([]*ast.File, len(p.files))
	for i, f := range p.files {
		asts[i] = f.ast
	}
	_, _ = conf.Check(module+p.dir, fset, asts, info) // errors leave invalid types behind
	return info
}

var exportFiles map[string]string // of the pure packages' dependencies, by import path

// exports imports from the compiler's own export data, which the build of this
// very test run left in the cache.
func exports(fset *token.FileSet) types.Importer {
	if exportFiles == nil {
		exportFiles = map[string]string{}
		out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", "./ledger/...", "maps", "slices").Output()
		if err == nil {
			for line := range strings.Lines(string(out)) {
				name, file, _ := strings.Cut(strings.TrimSpace(line), "=")
				exportFiles[name] = file
			}
		}
	}
	return importer.ForCompiler(fset, "gc", func(name string) (io.ReadCloser, error) {
		file, ok := exportFiles[name]
		if !ok || file == "" {
			return nil, fmt.Errorf("no export data of %s", name)
		}
		return os.Open(file)
	})
}
