package ledger

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
)

// rows is a sorted map from short keys to packed values. Rows lie one after
// the other in pages, and a tree of shelves finds the page: a million small rows
// cost their own bytes and a fifth, not a pointer, a header and a half-empty node
// each. Pages are strings: a copy of the map shares them, a write makes one
// new page.
//
// Where pages begin and end depends on the order of the writes. Nothing that
// replicas compare may see it.
type rows struct {
	top *shelf // nil: empty
	n   int
	own *owner
}

// shelf is a node of the tree: pages, or shelves below, ascending. It knows the
// first 8 bytes of the first key of each, so that a search looks at no page but
// the one it wants. Why not keys as strings, in a tree for any keys: each
// comparison then fetched another page from memory, a third of an operation at
// 10⁶ accounts.
type shelf struct {
	own   *owner
	first [shelfWidth]uint64
	pages []string // at the bottom
	below []*shelf // above it
}

// owner marks the shelves that a map may write to: those that it made itself.
// Others are copied on the way of a write. Only its address means something.
type owner struct{ _ byte }

const (
	// pageBytes is where a page is split. Larger pages cost a write more to copy,
	// smaller ones cost more tree above them.
	pageBytes = 1024
	// sparseBytes is where a page that lost a row joins one beside it.
	sparseBytes = pageBytes / 4
	maxKeyBytes = 255
	// shelfWidth is what a shelf holds at most. A write to a copied map copies one
	// shelf of each level.
	shelfWidth  = 32
	sparseShelf = shelfWidth / 4
)

func newRows() rows { return rows{own: new(owner)} }

// copy returns a map of its own. The original is read only, so any number of
// goroutines may copy it; it must not be written to while the copy is in use.
func (r *rows) copy() rows { return rows{top: r.top, n: r.n, own: new(owner)} }

// prefix is the first 8 bytes of a key, zeros after its end: keys are ordered
// like their prefixes, where these differ.
func prefix(key string) (p uint64) {
	if len(key) >= 8 {
		return uint64(key[7]) | uint64(key[6])<<8 | uint64(key[5])<<16 | uint64(key[4])<<24 |
			uint64(key[3])<<32 | uint64(key[2])<<40 | uint64(key[1])<<48 | uint64(key[0])<<56
	}
	for i := range len(key) {
		p |= uint64(key[i]) << (56 - 8*i)
	}
	return p
}

// compareKeys is strings.Compare, which mostly their prefixes decide.
func compareKeys(a, b string) int {
	if p, q := prefix(a), prefix(b); p != q {
		return cmp.Compare(p, q)
	}
	return strings.Compare(a, b)
}

func firstKey(page string) string { return page[1 : 1+int(page[0])] }

func (s *shelf) len() int { return len(s.pages) + len(s.below) }

// firstOf is the first key of what lies at i.
func (s *shelf) firstOf(i int) string {
	for s.below != nil {
		s, i = s.below[i], 0
	}
	return firstKey(s.pages[i])
}

// find is where key lies, or would; p is its prefix.
func (s *shelf) find(key string, p uint64) int {
	low, high := 1, s.len() // what is before all lies at 0 too
	for low < high {
		h := (low + high) / 2
		if f := s.first[h]; f < p || f == p && s.firstOf(h) <= key {
			low = h + 1
		} else {
			high = h
		}
	}
	return low - 1
}

// place puts a page or a shelf at i.
func (s *shelf) place(i int, page string, below *shelf) {
	if below != nil {
		s.below[i], s.first[i] = below, below.first[0]
		return
	}
	s.pages[i], s.first[i] = page, prefix(firstKey(page))
}

// insert puts a page or a shelf before i. A full shelf is cut, and what is right
// of the cut returned. Where rows come in their order, shelves stay full.
func (s *shelf) insert(i int, page string, below *shelf) (right *shelf) {
	if n := s.len(); n == shelfWidth {
		cut := n / 2
		if i == n {
			cut = n
		}
		right = s.cut(cut)
		if i > cut || cut == n {
			right.insert(i-cut, page, below)
			return right
		}
	}
	copy(s.first[i+1:], s.first[i:])
	if below != nil {
		s.below = slices.Insert(s.below, i, below)
	} else {
		s.pages = slices.Insert(s.pages, i, page)
	}
	s.place(i, page, below)
	return right
}

// cut takes off what lies from i on.
func (s *shelf) cut(i int) *shelf {
	right := &shelf{own: s.own}
	copy(right.first[:], s.first[i:])
	if s.below != nil {
		right.below = append(make([]*shelf, 0, shelfWidth), s.below[i:]...)
		s.below = slices.Delete(s.below, i, len(s.below))
	} else {
		right.pages = append(make([]string, 0, shelfWidth), s.pages[i:]...)
		s.pages = slices.Delete(s.pages, i, len(s.pages))
	}
	return right
}

// add puts a page behind all others.
func (s *shelf) add(page string) (right *shelf) {
	if s.below == nil {
		return s.insert(len(s.pages), page, nil)
	}
	if more := s.below[len(s.below)-1].add(page); more != nil {
		return s.insert(len(s.below), "", more)
	}
	return nil
}

func (s *shelf) remove(i int) {
	copy(s.first[i:], s.first[i+1:])
	if s.below != nil {
		s.below = slices.Delete(s.below, i, i+1)
	} else {
		s.pages = slices.Delete(s.pages, i, i+1)
	}
}

// writable is the shelf that at points to, or a copy in its place.
func (r *rows) writable(at **shelf) *shelf {
	s := *at
	if s.own != r.own {
		c := &shelf{own: r.own, first: s.first}
		if s.below != nil {
			c.below = append(make([]*shelf, 0, shelfWidth), s.below...)
		} else {
			c.pages = append(make([]string, 0, shelfWidth), s.pages...)
		}
		*at, s = c, c
	}
	return s
}

// rowAt reads the row that begins at byte i of a page.
func rowAt(page string, i int) (key, value string, end int) {
	k := i + 1 + int(page[i])
	n, size := uint64(page[k]), 1
	if n >= 0x80 {
		n, size = uvarint(page[k:])
	}
	v := k + size
	return page[i+1 : k], page[v : v+int(n)], v + int(n)
}

// uvarint is binary.Uvarint of a string; size 0: too short or too long.
func uvarint(s string) (n uint64, size int) {
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		if s[i] < 0x80 {
			if i == binary.MaxVarintLen64-1 && s[i] > 1 {
				return 0, 0
			}
			return n | uint64(s[i])<<(7*i), i + 1
		}
		n |= uint64(s[i]&0x7f) << (7 * i)
	}
	return 0, 0
}

// seek returns where in a page the row of key lies, or where it would.
func seek(page, key string) (start, end int, value string, found bool) {
	for start < len(page) {
		k, v, next := rowAt(page, start)
		if k >= key {
			if k == key {
				return start, next, v, true
			}
			break
		}
		start = next
	}
	return start, start, "", false
}

// page is the page that holds key, or would.
func (r *rows) page(key string) string {
	s, p := r.top, prefix(key)
	if s == nil {
		return ""
	}
	for s.below != nil {
		s = s.below[s.find(key, p)]
	}
	return s.pages[s.find(key, p)]
}

func (r *rows) get(key string) (string, bool) {
	_, _, v, ok := seek(r.page(key), key)
	return v, ok
}

// edit is what becomes of one row.
type edit struct {
	key   string
	value []byte
	gone  bool
}

func (r *rows) set(key string, value []byte) { r.apply([]edit{{key: key, value: value}}) }

func (r *rows) delete(key string) { r.apply([]edit{{key: key, gone: true}}) }

// apply makes edits, which ascend by key. Those that fall in one page write it
// once.
func (r *rows) apply(edits []edit) {
	for len(edits) > 0 {
		if len(edits[0].key) > maxKeyBytes {
			panic("rows: a key too long")
		}
		if r.top == nil {
			page, n := r.merge("", edits, 1<<64-1)
			if edits = edits[n:]; page != "" {
				r.begin(page)
			}
			continue
		}
		n, right := r.put(&r.top, edits, 1<<64-1)
		edits = edits[n:]
		r.grow(right)
		for len(r.top.below) == 1 {
			r.top = r.top.below[0]
		}
		if r.top.len() == 0 {
			r.top = nil
		}
	}
}

// begin puts the first page into an empty map.
func (r *rows) begin(page string) {
	r.top = &shelf{own: r.own, pages: make([]string, 0, shelfWidth)}
	r.top.insert(0, page, nil)
}

// merge is a page after the first n edits: at least one, and as many as have
// prefixes below bound and leave the page small enough to be cut in two.
func (r *rows) merge(page string, edits []edit, bound uint64) (merged string, n int) {
	var room [pageBytes + 512]byte // mostly enough
	out, at := room[:0], 0
	for n == 0 || n < len(edits) && len(out)+len(page)-at < pageBytes*3/2 && prefix(edits[n].key) < bound {
		e := &edits[n]
		start, end, _, found := seek(page[at:], e.key)
		out = append(out, page[at:at+start]...)
		at += end
		if !e.gone {
			out = append(append(out, byte(len(e.key))), e.key...)
			out = append(binary.AppendUvarint(out, uint64(len(e.value))), e.value...)
		}
		switch {
		case found && e.gone:
			r.n--
		case !found && !e.gone:
			r.n++
		}
		n++
	}
	return string(append(out, page[at:]...)), n
}

// grow puts beside the top what did not fit in it, if any.
func (r *rows) grow(right *shelf) {
	if right == nil {
		return
	}
	top := &shelf{own: r.own, below: make([]*shelf, 0, shelfWidth)}
	top.insert(0, "", r.top)
	top.insert(1, "", right)
	r.top = top
}

// put makes the first n edits in what at points to, all in one page. bound is the
// prefix of what comes behind it. It returns what did not fit.
func (r *rows) put(at **shelf, edits []edit, bound uint64) (n int, right *shelf) {
	s := r.writable(at)
	i := s.find(edits[0].key, prefix(edits[0].key))
	if i+1 < s.len() {
		bound = s.first[i+1]
	}
	if s.below == nil {
		page, n := r.merge(s.pages[i], edits, bound)
		return n, s.putPage(i, edits[n-1].key, page)
	}
	n, more := r.put(&s.below[i], edits, bound)
	if s.below[i].len() == 0 {
		s.remove(i)
		return n, nil
	}
	s.first[i] = s.below[i].first[0]
	if more != nil {
		return n, s.insert(i+1, "", more)
	}
	if s.below[i].len() < sparseShelf {
		r.join(s, max(i-1, 0))
	}
	return n, nil
}

// join makes one shelf of those at i and right of it, if they leave room enough.
func (r *rows) join(s *shelf, i int) {
	if i+1 >= s.len() || s.below[i].len()+s.below[i+1].len() > shelfWidth*3/4 {
		return
	}
	from, to := s.below[i+1], r.writable(&s.below[i])
	copy(to.first[to.len():], from.first[:from.len()])
	to.pages, to.below = append(to.pages, from.pages...), append(to.below, from.below...)
	s.remove(i + 1)
}

// putPage puts a page in the place of the one at i, which differs from it in
// rows of which that of key is the last. One that grew too large shares with a page beside it, or is
// cut; one that became small joins one.
func (s *shelf) putPage(i int, key, page string) (right *shelf) {
	beside := func(most int) int { // the left one of two pages that are not larger
		switch {
		case i+1 < len(s.pages) && len(page)+len(s.pages[i+1]) <= most:
			return i
		case i > 0 && len(page)+len(s.pages[i-1]) <= most:
			return i - 1
		}
		return -1
	}
	both := func(left int) string {
		if left == i {
			return page + s.pages[i+1]
		}
		return s.pages[i-1] + page
	}
	switch {
	case page == "":
		s.remove(i)
	case len(page) < sparseBytes:
		if j := beside(pageBytes * 3 / 4); j >= 0 {
			s.place(j, both(j), nil)
			s.remove(j + 1)
			return nil
		}
		s.place(i, page, nil)
	case len(page) > pageBytes:
		if j := beside(2 * pageBytes * 7 / 8); j >= 0 {
			left, right := cutPage(both(j), "")
			s.place(j, left, nil)
			s.place(j+1, right, nil)
			return nil
		}
		left, rest := cutPage(page, key)
		s.place(i, left, nil)
		if rest != "" {
			return s.insert(i+1, rest, nil)
		}
	default:
		s.place(i, page, nil)
	}
	return nil
}

// cutPage cuts a page near its middle, or before its last row if that is the one
// of last: where rows come in their order, pages stay full. A page of one row is
// not cut.
func cutPage(page, last string) (left, right string) {
	cut := len(page)
	off := func(at int) int { return max(2*at-len(page), len(page)-2*at) }
	for at := 0; at < len(page); {
		k, _, next := rowAt(page, at)
		if at > 0 && (off(at) < off(cut) || next == len(page) && k == last) {
			cut = at
		}
		at = next
	}
	return strings.Clone(page[:cut]), strings.Clone(page[cut:])
}

// from walks in ascending order beginning at the first key ≥ the given one. The
// map must not change meanwhile.
func (r *rows) from(key string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if r.top != nil {
			r.top.walk(key, yield)
		}
	}
}

func (s *shelf) walk(key string, yield func(string, string) bool) bool {
	at := s.find(key, prefix(key))
	for i := at; i < len(s.below); i++ {
		if !s.below[i].walk(key, yield) {
			return false
		}
	}
	for i := at; i < len(s.pages); i++ {
		for page, next := s.pages[i], 0; next < len(page); {
			var k, v string
			if k, v, next = rowAt(page, next); k >= key && !yield(k, v) {
				return false
			}
		}
	}
	return true
}

// loading fills an empty map with rows in ascending order.
type loading struct {
	r    rows
	page strings.Builder
}

func newLoading() *loading { return &loading{r: newRows()} }

func (l *loading) add(key, value string) {
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(len(value)))
	if need := 1 + len(key) + size + len(value); l.page.Len() > 0 && l.page.Len()+need > pageBytes*7/8 {
		l.flush()
	}
	l.page.WriteByte(byte(len(key)))
	l.page.WriteString(key)
	l.page.Write(length[:size])
	l.page.WriteString(value)
	l.r.n++
}

func (l *loading) flush() {
	page := strings.Clone(l.page.String()) // no larger than what it holds
	l.page.Reset()
	if l.r.top == nil {
		l.r.begin(page)
		return
	}
	l.r.grow(l.r.top.add(page))
}

func (l *loading) done() rows {
	if l.page.Len() > 0 {
		l.flush()
	}
	return l.r
}
