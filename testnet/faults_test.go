package testnet

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// FAULTS.md names what exists, and says something of every row of the fault table
// and of every crash point.
func TestFaultTableNamesWhatExists(t *testing.T) {
	table, err := os.ReadFile("FAULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	if err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "chaintest") {
			return err
		}
		b, err := os.ReadFile(path)
		tests.Write(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`((Test|Benchmark|Fault)[A-Za-z0-9]+(_[A-Za-z0-9]+)?)`").FindAllStringSubmatch(string(table), -1) {
		if !strings.Contains(tests.String(), "func "+name[1]+"(") && !strings.Contains(tests.String(), `t.Run("`+name[1]+`"`) {
			t.Errorf("there is no %s", name[1])
		}
	}
	said := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([C0-9][^|]*) \|`).FindAllStringSubmatch(string(table), -1) {
		for _, part := range strings.Split(row[1], ", ") {
			from, to, isRange := strings.Cut(part, "–")
			said[from] = true
			if a, _ := strconv.Atoi(from); isRange {
				for b, _ := strconv.Atoi(to); a <= b; a++ {
					said[strconv.Itoa(a)] = true
				}
			}
		}
	}
	for n := 1; n <= 60; n++ {
		if !said[strconv.Itoa(n)] || n <= 12 && !said["C"+strconv.Itoa(n)] {
			t.Errorf("row %d is missing", n)
		}
	}
}
