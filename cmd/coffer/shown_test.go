package main

import (
	"errors"
	"testing"
)

// A failed demo's result stays the last line: its error is no second document.
func TestShownErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("the chain says no")
	err := error(&shownError{cause})
	var shown *shownError
	if !errors.As(err, &shown) || !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("%v hides its cause or itself", err)
	}
}
