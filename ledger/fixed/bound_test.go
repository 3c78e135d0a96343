package fixed

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func (b Bound) rat() *big.Rat {
	r := new(big.Rat).SetInt(new(big.Int).SetUint64(b.m))
	p := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(b.e, -b.e))))
	if b.e < 0 {
		return r.Quo(r, p)
	}
	return r.Mul(r, p)
}

// Every Bound lies on its side of the exact number, and no further than its
// last bit; ranks keep the order.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wide := func(name string) Wide {
			w, err := Product(anInt().Draw(t, name), anInt().Draw(t, name)).Add(anInt().Draw(t, name).Wide())
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		exact := func(w Wide) *big.Rat {
			i, _ := new(big.Int).SetString(w.String(), 10)
			return new(big.Rat).SetInt(i)
		}
		near := func(name string, down, up Bound, want *big.Rat) {
			t.Helper()
			if down.rat().Cmp(want) > 0 || up.rat().Cmp(want) < 0 {
				t.Fatalf("%s: %v to %v around %v", name, down, up, want)
			}
			if next := down.up(false); !down.IsZero() && up != down && up != next {
				t.Fatalf("%s: %v and %v are not neighbours", name, down, up)
			}
		}
		x, y, z := wide("x"), wide("y"), wide("z")
		near("wide", x.Down(), x.Up(), exact(x))
		a, b, c := x.Down(), y.Up(), z.Down()
		near("product", a.MulDown(b), a.MulUp(b), new(big.Rat).Mul(a.rat(), b.rat()))
		down, err := a.DivDown(b)
		up, err2 := a.DivUp(b)
		if (err != nil) != b.IsZero() || (err2 != nil) != b.IsZero() {
			t.Fatalf("quotient by %v: %v, %v", b, err, err2)
		}
		if err == nil {
			near("quotient", down, up, new(big.Rat).Quo(a.rat(), b.rat()))
			for _, p := range [][2]Bound{{a, b}, {a, c}, {down, up}, {down, a}, {up, b}} {
				switch p[0].rat().Cmp(p[1].rat()) {
				case -1:
					if !p[0].Less(p[1]) || p[0].Rank() > p[1].Rank() {
						t.Fatalf("%v < %v: less %v, ranks %d, %d", p[0], p[1], p[0].Less(p[1]), p[0].Rank(), p[1].Rank())
					}
				case 0:
					if p[0] != p[1] {
						t.Fatalf("two forms of one number: %v, %v", p[0], p[1])
					}
				}
			}
		}
	})
	if far := (Bound{1 << 63, 600}); far.Rank() != 1<<32-1 || (Bound{1 << 63, -700}).Rank() != 0 || (Bound{}).Rank() != 0 {
		t.Error("ranks beyond the scale")
	}
}
