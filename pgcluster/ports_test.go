package pgcluster

import (
	"net"
	"testing"
)

// TestServerTakesAnotherPort: a port that was free a moment ago may be taken
// when the server gets to it.
func TestServerTakesAnotherPort(t *testing.T) {
	c, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	n := c.Nodes()[0]
	if err := n.Stop(Fast); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ports := []int{taken.Addr().(*net.TCPAddr).Port, taken.Addr().(*net.TCPAddr).Port, freePort()}
	next := 0
	err = n.startOn(t.Context(), func() int { next++; return ports[next-1] })
	if err != nil || next != 3 || !n.Running() {
		t.Errorf("after %d ports: %v", next, err)
	}
}

func TestFreePort(t *testing.T) {
	for range 100 {
		port := freePort()
		if port < 15000 || port >= 32768 || !portFree(port) {
			t.Errorf("port %d", port)
		}
	}
}
