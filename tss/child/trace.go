package child

import (
	"bytes"
	"strconv"
	"strings"
)

// Death says how a child ended.
type Death struct {
	How   string   // exit status or signal
	Cause string   // what the runtime said, if it is one of its own sentences
	Stack []string // functions of the goroutine that died, innermost first
	// Index is the first argument of the outermost function of that goroutine,
	// -1 if it has none that can be read. In the library's goroutines it is the
	// party whose message is being computed with.
	Index int
}

func (d Death) first() string {
	if d.Cause != "" {
		return d.How + ", " + d.Cause
	}
	return d.How
}

// String tells the death in one line.
func (d Death) String() string {
	s := d.first()
	if len(d.Stack) > 0 {
		s += " in " + strings.Join(d.Stack, " < ")
	}
	return s
}

const maxStack = 8

// readTrace takes from the runtime's last words what cannot hold a secret. The
// rest is dropped unread: arguments of functions are words of memory, and a
// panic's own text may quote anything.
func readTrace(b []byte) Death {
	d := Death{Index: -1}
	running := false
	for line := range bytes.Lines(b) {
		s := strings.TrimRight(string(line), "\r\n")
		switch {
		case strings.HasPrefix(s, "panic: runtime error: "), strings.HasPrefix(s, "fatal error: "):
			if d.Cause == "" {
				d.Cause = s[:min(len(s), 120)]
			}
		case strings.HasPrefix(s, "panic: ") && d.Cause == "":
			d.Cause = "panic"
		case strings.HasPrefix(s, "goroutine "):
			if running {
				return d // the next one
			}
			running = true
		case !running || s == "" || s[0] == '\t' || strings.HasPrefix(s, "created by "):
		default:
			at := strings.LastIndexByte(s, '(')
			if at <= 0 {
				continue
			}
			if len(d.Stack) < maxStack {
				d.Stack = append(d.Stack, s[:at][strings.LastIndexByte(s[:at], '/')+1:])
			}
			d.Index = firstArgument(s[at+1:])
		}
	}
	return d
}

// firstArgument reads "0x2, 0xc000…" as 2. A question mark behind it says that
// the runtime is not sure.
func firstArgument(s string) int {
	s, _, _ = strings.Cut(strings.TrimSuffix(s, ")"), ",")
	s, hex := strings.CutPrefix(s, "0x")
	n, err := strconv.ParseUint(s, 16, 16)
	if !hex || err != nil {
		return -1
	}
	return int(n)
}
