package testnet

import (
	"strings"
	"testing"
)

func TestBuildBTCDSaysWhatIsMissing(t *testing.T) {
	refused := func(t *testing.T, want string) {
		t.Helper()
		_, err := BuildBTCD(t.Context(), NoProgress)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want one line with %q", err, want)
		}
	}
	t.Run("toolchain", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		refused(t, "install Go")
	})
	t.Run("checkout", func(t *testing.T) {
		t.Chdir(t.TempDir())
		refused(t, "set $BTCD")
	})
	t.Run("override", func(t *testing.T) {
		t.Setenv("BTCD", "/nonexistent/btcd")
		refused(t, "$BTCD: ")
	})
}

func TestBTCDModuleIsFoundFromInsideIt(t *testing.T) {
	want := must[string](t)(findBTCDModule())
	t.Chdir("btcd")
	if got := must[string](t)(findBTCDModule()); got != want {
		t.Errorf("found %s from inside %s", got, want)
	}
}
