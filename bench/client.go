package bench

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// tally is what the clients of one process counted.
type tally struct {
	Queries []uint32 // by client
	Errors  int
	First   string // of the errors
}

// loginsAtOnce and visitorsAtOnce are of each process.
const (
	loginsAtOnce   = 16
	visitorsAtOnce = 8
)

// RunClients is the main function of a process with clients: the address, what
// they do, how many there are, and for how many seconds.
func RunClients(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("want 4 arguments, got %q", args)
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	var conns []*client
	if args[1] == "stay" {
		if conns, err = connectAll(args[0], n); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	t := tally{}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	if args[1] == "stay" {
		t.ask(conns, end)
	} else {
		t.visit(args[0], end)
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

// connectAll opens n connections, some at a time.
func connectAll(address string, n int) ([]*client, error) {
	conns, errs := make([]*client, n), make([]error, loginsAtOnce)
	var all sync.WaitGroup
	for worker := range loginsAtOnce {
		all.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += loginsAtOnce {
				conns[i], errs[worker] = logIn(address)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return conns, nil
}

// ask has each client ask one question after another.
func (t *tally) ask(conns []*client, end time.Time) {
	t.repeat(len(conns), end, func(i int) error { return conns[i].query() })
}

// visit has some clients come, ask once and leave, again and again.
func (t *tally) visit(address string, end time.Time) {
	t.repeat(visitorsAtOnce, end, func(int) error {
		c, err := logIn(address)
		if err != nil {
			return err
		}
		defer c.leave()
		return c.query()
	})
}

// repeat has n clients at once do the same again and again, each until it fails.
func (t *tally) repeat(n int, end time.Time, once func(i int) error) {
	t.Queries = make([]uint32, n)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { // until end, or its first failure
			for time.Now().Before(end) {
				if err := once(i); err != nil {
					mu.Lock()
					t.fail(err)
					mu.Unlock()
					return
				}
				t.Queries[i]++
			}
		})
	}
	all.Wait()
}

func (t *tally) fail(err error) {
	if t.Errors++; t.Errors == 1 {
		t.First = err.Error()
	}
}

// client is a connection that asks no more of its process than it must: what is
// measured is on the other side.
type client struct {
	net.Conn
	head [5]byte
}

// logIn opens a connection. The cluster trusts whoever connects.
func logIn(address string) (*client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn}
	const params = "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	packet := binary.BigEndian.AppendUint32(nil, uint32(4+len(params)))
	if _, err := c.Write(append(packet, params...)); err != nil {
		return nil, err
	}
	return c, c.await()
}

func (c *client) query() error {
	const text = "SELECT 1\x00"
	if _, err := c.Write(append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(text))), text...)); err != nil {
		return err
	}
	return c.await()
}

func (c *client) leave() {
	_, _ = c.Write([]byte{'X', 0, 0, 0, 4})
	_ = c.Close()
}

// await reads up to ReadyForQuery. An ErrorResponse is an error.
func (c *client) await() error {
	var buf [2048]byte
	for {
		if _, err := io.ReadFull(c, c.head[:]); err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint32(c.head[1:])) - 4
		if size < 0 || size > len(buf) {
			return fmt.Errorf("message %q of %d bytes", c.head[0], size)
		}
		if _, err := io.ReadFull(c, buf[:size]); err != nil {
			return err
		}
		switch c.head[0] {
		case 'E':
			return fmt.Errorf("refused: %q", buf[:size])
		case 'Z':
			return nil
		}
	}
}
