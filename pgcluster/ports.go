package pgcluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// freePort returns a port of 127.0.0.1 that nobody listens on now. It lies below
// the range that outgoing connections take their ports from, so that a server
// that is down finds its port free when it comes back, and no client that dials
// a dead port connects to itself. Another process may still be quicker to take it.
func freePort() int {
	const lowest, tries = 15000, 1000
	highest := 32768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &highest)
	}
	if highest < lowest+1000 {
		highest = 65536 // an unusual range: no port is outside it that we could take
	}
	port := 0
	for range tries {
		port = lowest + rand.IntN(highest-lowest)
		if portFree(port) {
			break
		}
	}
	return port
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
