package testnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peer is a program of others that is measured beside ours, or drives one. Each has a nested module, so that nothing
// of it comes into ours.
type peer struct {
	name, module, pkg string
	cgo               bool // needs a C compiler
	expected          time.Duration
}

var (
	etcdServer   = peer{name: "etcd", module: "testnet/etcd", pkg: "go.etcd.io/etcd/server/v3", expected: 90 * time.Second}
	etcdPut      = peer{name: "etcd-put", module: "testnet/etcd", pkg: "./put", expected: 15 * time.Second}
	rqliteServer = peer{name: "rqlited", module: "testnet/rqlite", pkg: "github.com/rqlite/rqlite/v8/cmd/rqlited", cgo: true, expected: 4 * time.Minute}
)

// build returns the program's path, building it on first use into the user's cache folder under a name made of
// everything that goes into it.
func (p peer) build(ctx context.Context, progress Progress) (path string, err error) {
	module, err := findNested(p.module, p.name, "--without to leave it out")
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", fmt.Errorf("the go command, which builds %s once, is not in PATH: install Go 1.26 or later", p.name)
	}
	if path, err = p.cachePath(ctx, module); err != nil {
		return "", fmt.Errorf("locate %s in the cache: %w", p.name, err)
	}
	if isExecutable(path) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("create the build cache: %w", err)
	}
	task := progress.Begin("build "+p.name, Size{Expected: p.expected})
	defer func() { task.End(err) }()
	unlock, err := waitLock(ctx, path+".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", p.name, err)
	}
	defer unlock()
	if isExecutable(path) { // the process we waited for built it
		return path, nil
	}
	cmd := goCommand(ctx, module, "build", "-trimpath", "-buildvcs=false", "-o", path+".new", p.pkg)
	if p.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1") // the last one counts
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w: %s", p.name, module, errors.Join(err, ctx.Err()), lastLine(output.String()))
	}
	return path, os.Rename(path+".new", path)
}

func (p peer) cachePath(ctx context.Context, module string) (string, error) {
	version, err := goCommand(ctx, module, "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOVERSION: %w", err)
	}
	files := []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}
	own, err := filepath.Glob(filepath.Join(module, p.pkg, "*.go"))
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	for _, f := range append(files, own...) {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(b)
		hash.Write(sum[:])
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := fmt.Sprintf("%s-%s-%s", p.name, strings.TrimSpace(string(version)), hex.EncodeToString(hash.Sum(nil)[:6]))
	return filepath.Join(cache, "coffer", dir, p.name), nil
}
