package ledger

import (
	"encoding/binary"
	"iter"
	"strings"

	"github.com/tidwall/btree"
)

// rows is a sorted map from short keys to packed values. Rows lie one after
// the other in pages, and a tree finds the page: a million small rows cost
// their own bytes and a tenth, not a pointer, a header and a half-empty node
// each. Pages are strings: a copy of the map shares them, a write makes one
// new page.
//
// Where pages begin and end depends on the order of the writes. Nothing that
// replicas compare may see it.
type rows struct {
	pages btree.Map[string, string] // by first key, which is a part of the page
	n     int
}

const (
	// pageBytes is where a page is split. Larger pages cost a write more to copy,
	// smaller ones cost more tree above them.
	pageBytes = 1536
	// sparseBytes is where a page that lost a row joins the next one.
	sparseBytes = pageBytes / 4
	maxKeyBytes = 255
)

func newRows() rows { return rows{pages: *btree.NewMap[string, string](8)} }

// copy returns a map of its own. The original is read only, so any number of
// goroutines may copy it; it must not be written to while the copy is in use.
func (r *rows) copy() rows {
	pages := r.pages
	return rows{pages: *pages.Copy(), n: r.n}
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
func (r *rows) page(key string) (page string) {
	found := false
	r.pages.Descend(key, func(_, p string) bool {
		page, found = p, true
		return false
	})
	if !found {
		_, page, _ = r.pages.Min()
	}
	return page
}

func (r *rows) get(key string) (string, bool) {
	_, _, v, ok := seek(r.page(key), key)
	return v, ok
}

func (r *rows) set(key, value string) {
	if len(key) > maxKeyBytes {
		panic("rows: a key too long")
	}
	page := r.page(key)
	start, end, old, found := seek(page, key)
	if found && old == value {
		return
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(len(value)))
	var b strings.Builder
	b.Grow(len(page) - (end - start) + 1 + len(key) + size + len(value))
	b.WriteString(page[:start])
	b.WriteByte(byte(len(key)))
	b.WriteString(key)
	b.Write(length[:size])
	b.WriteString(value)
	b.WriteString(page[end:])
	if !found {
		r.n++
	}
	r.replace(page, b.String())
}

func (r *rows) delete(key string) {
	page := r.page(key)
	start, end, _, found := seek(page, key)
	if !found {
		return
	}
	r.n--
	left := page[:start] + page[end:]
	if len(left) > 0 && len(left) < sparseBytes {
		first, _, _ := rowAt(page, 0)
		var next string
		r.pages.Ascend(first, func(k, p string) bool {
			if k == first {
				return true
			}
			next = p
			return false
		})
		if next != "" && len(left)+len(next) <= pageBytes*3/4 {
			k, _, _ := rowAt(next, 0)
			r.pages.Delete(k)
			left += next
		}
	}
	r.replace(page, left)
}

// replace puts a page in the place of another, or two if it grew too large.
func (r *rows) replace(old, page string) {
	if old != "" {
		was, _, _ := rowAt(old, 0)
		if page == "" {
			r.pages.Delete(was)
			return
		}
		if is, _, _ := rowAt(page, 0); is != was {
			r.pages.Delete(was)
		}
	}
	first, _, second := rowAt(page, 0)
	if len(page) <= pageBytes || second == len(page) {
		r.pages.Set(first, page)
		return
	}
	cut := second
	for {
		_, _, next := rowAt(page, cut)
		if next > len(page)/2 {
			break
		}
		cut = next
	}
	for _, half := range []string{strings.Clone(page[:cut]), strings.Clone(page[cut:])} {
		k, _, _ := rowAt(half, 0)
		r.pages.Set(k, half)
	}
}

// from walks in ascending order beginning at the first key ≥ the given one. The
// map must not change meanwhile.
func (r *rows) from(key string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		pivot := key // or the first key of the page before, which may hold it
		r.pages.Descend(key, func(k, _ string) bool {
			pivot = k
			return false
		})
		r.pages.Ascend(pivot, func(_, page string) bool {
			for i := 0; i < len(page); {
				k, v, next := rowAt(page, i)
				if k >= key && !yield(k, v) {
					return false
				}
				i = next
			}
			return true
		})
	}
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
	first, _, _ := rowAt(page, 0)
	l.r.pages.Load(first, page)
	l.page.Reset()
}

func (l *loading) done() rows {
	if l.page.Len() > 0 {
		l.flush()
	}
	return l.r
}
