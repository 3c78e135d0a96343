// Command put writes to an etcd cluster with its own client, as fast as a number
// of clients get their answers, and prints how many puts were acknowledged.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// connections per endpoint at most: HTTP/2 carries many puts on each.
const connections = 4

func main() {
	endpoints := flag.String("endpoints", "", "comma-separated host:port")
	clients := flag.Int("clients", 1, "puts under way at once")
	duration := flag.Duration("duration", time.Second, "how long")
	size := flag.Int("size", 256, "bytes of a value")
	flag.Parse()
	if err := run(strings.Split(*endpoints, ","), *clients, *duration, *size); err != nil {
		fmt.Fprintln(os.Stderr, "put:", err)
		os.Exit(1)
	}
}

func run(endpoints []string, clients int, d time.Duration, size int) error {
	var conns []*clientv3.Client
	for range min(connections, clients) {
		for _, e := range endpoints {
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{e}, DialTimeout: 5 * time.Second})
			if err != nil {
				return err
			}
			defer c.Close()
			conns = append(conns, c)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Minute)
	defer cancel()
	value := make([]byte, size/2)
	rand.Read(value)
	put := func(i, n int) error {
		_, err := conns[i%len(conns)].Put(ctx, fmt.Sprintf("client-%d", i), fmt.Sprintf("%08d%x", n, value)[:size])
		return err
	}
	for i := range conns { // dialled before the clock runs
		if err := put(i, 0); err != nil {
			return err
		}
	}
	var done atomic.Int64
	var failed error
	var once sync.Once
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(d)
	for i := range clients {
		wg.Go(func() {
			for n := 1; time.Now().Before(end); n++ {
				if err := put(i, n); err != nil {
					once.Do(func() { failed = err })
					return
				}
				if time.Now().Before(end) {
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"puts": done.Load(), "seconds": d.Seconds()})
}
