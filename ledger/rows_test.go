package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// check: every row is where a search looks for it, and shelves are what they say.
func (r *rows) check() error {
	n, last := 0, ""
	var depth func(s *shelf) (int, error)
	depth = func(s *shelf) (int, error) {
		if s.len() == 0 || s.len() > shelfWidth || len(s.pages) > 0 && len(s.below) > 0 {
			return 0, fmt.Errorf("a shelf of %d pages and %d shelves", len(s.pages), len(s.below))
		}
		deep := 0
		for i := range s.len() {
			if s.first[i] != prefix(s.firstOf(i)) {
				return 0, fmt.Errorf("%x under the prefix %x", s.firstOf(i), s.first[i])
			}
			if s.below != nil {
				d, err := depth(s.below[i])
				if err != nil {
					return 0, err
				}
				if i > 0 && d != deep {
					return 0, fmt.Errorf("depths %d and %d under one shelf", deep, d)
				}
				deep = d
				continue
			}
			page, rows := s.pages[i], 0
			for at := 0; at < len(page); rows++ {
				k, v, next := rowAt(page, at)
				if n > 0 && k <= last {
					return 0, fmt.Errorf("%x after %x", k, last)
				}
				if got, ok := r.get(k); !ok || got != v {
					return 0, fmt.Errorf("%x is not found", k)
				}
				n, last, at = n+1, k, next
			}
			if rows == 0 {
				return 0, errors.New("an empty page")
			}
		}
		return deep + 1, nil
	}
	if r.top != nil {
		if _, err := depth(r.top); err != nil {
			return err
		}
	}
	if n != r.n {
		return fmt.Errorf("%d rows counted of %d", r.n, n)
	}
	return nil
}

// rows do what a sorted map does, and copies stay as they are: with keys whose
// first 8 bytes are the same, keys that are the beginning of others, values
// larger than a page, and enough of them for shelves above shelves.
//
// Seen red with a shelf written to without looking whose it is (writable), with
// prefixes that are equal taken for equal keys (find), and with a first page that
// got a smaller key and a shelf above that was not told (put); for edits together,
// with the first page's taken for all (bound), and with the rest of a page lost
// behind the last edit (merge).
func TestRowsLikeAMap(t *testing.T) {
	key := func(i int) string {
		switch i % 4 {
		case 0:
			return fmt.Sprintf("same beginning %05d", i)
		case 1:
			return fmt.Sprintf("%03d", i/4)
		case 2:
			return strings.Repeat("\x00", i/4%7) + "x"
		}
		return fmt.Sprintf("%x", i*7919%1000)
	}
	type copied struct {
		rows  *rows
		model map[string]string
	}
	same := func(r *rows, model map[string]string) error {
		if err := r.check(); err != nil {
			return err
		}
		keys := slices.Sorted(maps.Keys(model))
		i := 0
		for k, v := range r.from("") {
			if i >= len(keys) || keys[i] != k || model[k] != v {
				return fmt.Errorf("row %d is %x", i, k)
			}
			i++
		}
		if i != len(keys) || r.n != len(keys) {
			return fmt.Errorf("%d of %d rows", i, len(keys))
		}
		return nil
	}
	deepest := 0
	rapid.Check(t, func(t *rapid.T) {
		r, model := newRows(), map[string]string{}
		var copies []copied
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			from, count := rapid.IntRange(0, 3000).Draw(t, "from"), rapid.OneOf(rapid.IntRange(1, 300), rapid.IntRange(1, 300), rapid.IntRange(1, 300), rapid.Just(4_000)).Draw(t, "count")
			by := rapid.SampledFrom([]int{1, -1, 4, 17}).Draw(t, "by")
			value := strings.Repeat("v", rapid.SampledFrom([]int{0, 3, 100, 700, 2000}).Draw(t, "size")) + fmt.Sprint(step)
			op := rapid.SampledFrom([]string{"set", "set", "set", "delete", "apply", "copy", "copy and go on with the original's copy"}).Draw(t, "op")
			switch op {
			case "set":
				for i := range count {
					k := key(max(from+i*by, 0))
					r.set(k, []byte(value))
					model[k] = value
				}
			case "delete":
				for i := range count * 3 {
					k := key(max(from+i*by, 0))
					r.delete(k)
					delete(model, k)
				}
			case "apply":
				edits := map[string]edit{}
				for i := range count {
					k := key(max(from+i*by, 0))
					edits[k] = edit{key: k, value: []byte(value), gone: i%3 == 0}
					if model[k] = value; i%3 == 0 {
						delete(model, k)
					}
				}
				var list []edit
				for _, k := range slices.Sorted(maps.Keys(edits)) {
					list = append(list, edits[k])
				}
				r.apply(list)
			default: // the original is not written to again
				c, d := r.copy(), r.copy()
				copies = append(copies, copied{&c, maps.Clone(model)})
				r = d
			}
			start := key(from)
			want := slices.Sorted(maps.Keys(model))
			at, _ := slices.BinarySearch(want, start)
			for k := range r.from(start) {
				if at >= len(want) || k != want[at] {
					t.Fatalf("from %x: %x", start, k)
				}
				if at++; at%5 == 0 {
					break
				}
			}
			if v, ok := r.get(start); ok != (slices.Contains(want, start)) || v != model[start] {
				t.Fatalf("%x: %q, %v", start, v, ok)
			}
			d := 0
			for s := r.top; s != nil && s.below != nil; s = s.below[0] {
				d++
			}
			deepest = max(deepest, d)
		}
		for i, c := range append(copies, copied{&r, model}) {
			if err := same(c.rows, c.model); err != nil {
				t.Fatalf("copy %d of %d: %v", i, len(copies), err)
			}
		}
	})
	if deepest < 2 {
		t.Errorf("%d shelves above each other at most: the test proves too little", deepest)
	}
}

// Rows that come in their order fill pages and shelves, in whatever way they
// come; rows in any order fill three quarters.
func TestRowsFill(t *testing.T) {
	filled := func(r *rows) (pages, bytes int) {
		var count func(s *shelf)
		count = func(s *shelf) {
			for _, b := range s.below {
				count(b)
			}
			for _, p := range s.pages {
				if pages, bytes = pages+1, bytes+len(p); len(p) > pageBytes {
					t.Errorf("a page of %d bytes", len(p))
				}
			}
		}
		count(r.top)
		return pages, bytes
	}
	ordered, random, loaded := newRows(), newRows(), newLoading()
	for i := range 50_000 {
		ordered.set(fmt.Sprintf("%05d", i), []byte("twenty bytes of text"))
		random.set(scaleID(i), []byte("twenty bytes of text"))
		loaded.add(fmt.Sprintf("%05d", i), "twenty bytes of text")
	}
	read := loaded.done()
	for name, c := range map[string]struct {
		r     *rows
		least int // per cent of pageBytes
	}{"in order": {&ordered, 95}, "loaded": {&read, 83}, "in any order": {&random, 72}} {
		if err := c.r.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if pages, bytes := filled(c.r); bytes*100 < pages*pageBytes*c.least {
			t.Errorf("%s: %d bytes in %d pages, less than %d %%", name, bytes, pages, c.least)
		}
	}
}
