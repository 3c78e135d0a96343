//go:build !linux

package testnet

// chaosPlace is nothing here: nodes stay on loopback.
type chaosPlace struct{ placement }

func newChaosPlace(_ string, _ int, missing map[string]string) *chaosPlace {
	missing[faultPartition], missing[faultDiskFull] = "network namespaces are Linux's", "mounts a tmpfs, which is Linux's"
	return &chaosPlace{}
}

func (*chaosPlace) cut(int, bool) error { return nil }
func (*chaosPlace) fill() error         { return nil }
func (*chaosPlace) unfill() error       { return nil }
func (*chaosPlace) remove() []string    { return nil }
