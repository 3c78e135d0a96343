package testnet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// chaosPlace is networks and a small disk made for one run and taken away after it. It needs root; without, nodes stay
// on loopback and the faults that need it are skipped with the reason.
type chaosPlace struct {
	placement
	tag       string
	spaces    []string // network namespaces
	bridge    string
	listeners []net.Listener
	disk      string // mount point, of the one node whose disk can be filled
	wg        sync.WaitGroup
}

const smallDisk = "160m" // Badger's first files fit, and are written to within the run

// newChaosPlace makes what the machine permits and says in missing what it does not.
func newChaosPlace(dir string, nodes int, missing map[string]string) *chaosPlace {
	c := &chaosPlace{}
	var b [3]byte
	rand.Read(b[:])
	c.tag = fmt.Sprintf("cf%x", b)
	if os.Geteuid() != 0 {
		missing[faultPartition], missing[faultDiskFull] = "needs root, for network namespaces", "needs root, to mount a small file system"
		return c
	}
	c.placement.forward = c.outlets
	if err := c.networks(nodes, b[0]); err != nil {
		missing[faultPartition] = err.Error()
		c.noNetworks()
		c.placement = placement{}
	}
	at := filepath.Join(dir, nodeName(nodes-1))
	err := os.MkdirAll(at, 0o700)
	if err == nil {
		err = syscall.Mount("tmpfs", at, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size="+smallDisk+",mode=0700")
	}
	if err != nil {
		missing[faultDiskFull] = fmt.Sprintf("mount a small file system: %v", err)
	} else {
		c.disk = at
	}
	return c
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, lastLine(string(out)))
	}
	return nil
}

// networks gives each node a namespace of its own behind one bridge, which leads nowhere else.
func (c *chaosPlace) networks(nodes int, third byte) error {
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s (of iproute2 and util-linux) in PATH", tool)
		}
	}
	c.bridge = c.tag + "b"
	net := "10.213." + strconv.Itoa(int(third)) + "."
	steps := [][]string{
		{"link", "add", c.bridge, "type", "bridge"},
		{"addr", "add", net + "1/24", "dev", c.bridge},
		{"link", "set", c.bridge, "up"},
	}
	for i := range nodes {
		ns, outer, inner := fmt.Sprintf("%s-%d", c.tag, i), c.outer(i), fmt.Sprintf("%si%d", c.tag, i)
		host := net + strconv.Itoa(10+i)
		c.spaces, c.hosts = append(c.spaces, ns), append(c.hosts, host)
		c.enter = append(c.enter, []string{"nsenter", "--net=/run/netns/" + ns, "--"})
		steps = append(steps, [][]string{
			{"netns", "add", ns},
			{"link", "add", outer, "type", "veth", "peer", "name", inner},
			{"link", "set", outer, "master", c.bridge},
			{"link", "set", outer, "up"},
			{"link", "set", inner, "netns", ns},
			{"-n", ns, "addr", "add", host + "/24", "dev", inner},
			{"-n", ns, "link", "set", inner, "up"},
			{"-n", ns, "link", "set", "lo", "up"},
		}...)
	}
	for _, s := range steps {
		if err := ip(s...); err != nil {
			return err
		}
	}
	return nil
}

func (c *chaosPlace) outer(i int) string { return fmt.Sprintf("%so%d", c.tag, i) }

// cut takes node i off its peers, or puts it back.
func (c *chaosPlace) cut(i int, off bool) error {
	state := "up"
	if off {
		state = "down"
	}
	return ip("link", "set", c.outer(i), state)
}

// outlets joins loopback here and in the namespaces: nodes find chains and prices where they expect them, and clients
// the nodes. So a cut takes a node's peers away and nothing else: clients go on to reach it, which is the harder case.
func (c *chaosPlace) outlets(out, in []int) error {
	for i, ns := range c.spaces {
		for _, p := range out {
			l, err := inSpace(ns, func() (net.Listener, error) { return net.Listen("tcp4", Loopback(p)) })
			if err != nil {
				return err
			}
			c.serve(l, func() (net.Conn, error) { return net.Dial("tcp4", Loopback(p)) })
		}
		l, err := net.Listen("tcp4", Loopback(in[i]))
		if err != nil {
			return err
		}
		c.serve(l, func() (net.Conn, error) {
			return inSpace(ns, func() (net.Conn, error) { return net.DialTimeout("tcp4", Loopback(in[i]), time.Second) })
		})
	}
	return nil
}

func (c *chaosPlace) serve(l net.Listener, dial func() (net.Conn, error)) {
	c.listeners = append(c.listeners, l)
	c.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				if out, err := dial(); err == nil {
					defer out.Close()
					pipe(in, out)
				}
			}()
		}
	})
}

// inSpace opens a socket in another namespace. The thread that went there does not come back: it ends with its goroutine.
func inSpace[T any](ns string, open func() (T, error)) (s T, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var f *os.File
		if f, err = os.Open("/run/netns/" + ns); err != nil {
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		s, err = open()
	}()
	<-done
	return s, err
}

// pipe returns when either side ends.
func pipe(a, b net.Conn) {
	done := make(chan struct{}, 2)
	for _, p := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.Copy(p[1], p[0]) // how it ended is the two sides' affair
			done <- struct{}{}
		}()
	}
	<-done
}

const filler = "filler"

// fill leaves nothing on the small disk.
func (c *chaosPlace) fill() error {
	f, err := os.OpenFile(filepath.Join(c.disk, filler), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for size := len(block); size > 0; {
		_, err := f.Write(block[:size])
		if errors.Is(err, syscall.ENOSPC) {
			size /= 2
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *chaosPlace) unfill() error {
	if err := os.Remove(filepath.Join(c.disk, filler)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (c *chaosPlace) noNetworks() {
	for i := range c.spaces {
		_ = ip("link", "del", c.outer(i)) // what was not made, or went with its namespace, is not there
		_ = ip("netns", "del", c.spaces[i])
	}
	if c.bridge != "" {
		_ = ip("link", "del", c.bridge)
	}
}

// remove takes everything away again and says what it could not.
func (c *chaosPlace) remove() (left []string) {
	for _, l := range c.listeners {
		l.Close()
	}
	c.wg.Wait()
	if len(c.spaces) > 0 {
		c.noNetworks()
		for _, ns := range c.spaces {
			if _, err := os.Stat("/run/netns/" + ns); err == nil {
				left = append(left, "network namespace "+ns)
			}
		}
	}
	if c.disk != "" {
		if err := syscall.Unmount(c.disk, 0); err != nil {
			left = append(left, fmt.Sprintf("mount %s: %v", c.disk, err))
		}
	}
	return left
}
