package testnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	// btcdPackage is the daemon's import path, btcdModule where its nested module lies in a checkout: tss-lib holds
	// this module's btcd at 0.24, whose regtest refuses segwit for its first 450 blocks (spec: chains, "One go.mod").
	btcdPackage = "github.com/btcsuite/btcd"
	btcdModule  = "testnet/btcd"
	rootModule  = "github.com/coffer-network/coffer"

	// btcdBuildTime is what a first build takes on two cores with its modules downloaded.
	btcdBuildTime = 45 * time.Second

	missingGo = "the go command is not in PATH: install Go 1.26 or later (it builds btcd once), or set $BTCD to a btcd 0.26 binary"
)

var (
	btcdRequirement = regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(btcdPackage) + ` (v\S+)`)
	moduleLine      = regexp.MustCompile(`(?m)^module (\S+)`)
)

// BuildBTCD returns the path of the Bitcoin daemon, building it on first use into the user's cache folder.
// $BTCD names another binary to use instead.
func BuildBTCD(ctx context.Context, progress Progress) (path string, err error) {
	if path = os.Getenv("BTCD"); path != "" {
		if path, err = exec.LookPath(path); err != nil {
			return "", fmt.Errorf("$BTCD: %w", err)
		}
		return filepath.Abs(path)
	}
	module, err := findBTCDModule()
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New(missingGo)
	}
	path, err = btcdCachePath(ctx, module)
	if err != nil {
		return "", fmt.Errorf("locate btcd in the cache: %w", err)
	}
	if isExecutable(path) {
		return path, nil
	}
	return path, buildBTCDInto(ctx, module, path, progress)
}

func findBTCDModule() (string, error) {
	return findNested(btcdModule, "btcd", "$BTCD to a btcd 0.26 binary")
}

// findNested walks from the working directory upwards to the checkout, which holds the nested module that what is
// built from.
//
// Why not embed the module: go:embed does not reach into a nested module. Why not `go env GOMOD`: it stops at the
// nearest go.mod, which in a nested module is the wrong one.
func findNested(module, what, otherwise string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			if m := moduleLine.FindSubmatch(mod); m != nil && string(m[1]) == rootModule {
				return filepath.Join(dir, filepath.FromSlash(module)), nil
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the checkout: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside a checkout of %s, which %s is built from: run from one, or set %s", start, rootModule, what, otherwise)
		}
	}
}

// btcdCachePath names the binary after everything it is made of, so that a changed pin or toolchain builds anew.
func btcdCachePath(ctx context.Context, module string) (string, error) {
	mod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	pinned := btcdRequirement.FindSubmatch(mod)
	if pinned == nil {
		return "", fmt.Errorf("%s requires no %s", filepath.Join(module, "go.mod"), btcdPackage)
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	goVersion, err := goCommand(ctx, module, "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOVERSION: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(sum)
	name := fmt.Sprintf("btcd-%s-%s-%s", pinned[1], strings.TrimSpace(string(goVersion)), hex.EncodeToString(hash[:6]))
	return filepath.Join(cache, "coffer", name, "btcd"), nil
}

func buildBTCDInto(ctx context.Context, module, path string, progress Progress) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create the build cache: %w", err)
	}
	task := progress.Begin("build btcd", Size{Expected: btcdBuildTime})
	defer func() { task.End(err) }()
	unlock, err := waitLock(ctx, path+".lock")
	if err != nil {
		return fmt.Errorf("build btcd: %w", err)
	}
	defer unlock()
	if isExecutable(path) { // the process we waited for built it
		return nil
	}
	temp := path + ".new"
	build := goCommand(ctx, module, "build", "-trimpath", "-buildvcs=false", "-o", temp, btcdPackage)
	var output bytes.Buffer
	build.Stdout, build.Stderr = &output, &output
	if err := build.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("build btcd: %w", ctx.Err())
		}
		return fmt.Errorf("build btcd in %s: %w: %s", module, err, lastLine(output.String()))
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("install btcd: %w", err)
	}
	return nil
}

func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// A workspace or flags of the user's could pick other versions than the pinned ones. cgo off: nothing but Go is needed.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0")
	return cmd
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
