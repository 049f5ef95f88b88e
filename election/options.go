package election

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"
)

// Options say who this proxy is and whom it votes with. The zero value with an
// ID is one proxy alone: it coordinates itself at once, opens no port and its
// write lease has no end.
type Options struct {
	// ID names this proxy among the others, and stays the same through restarts.
	ID string
	// Version, Client, Cancel and HTTP are told to the other members: the program's
	// version, and where clients, cancel requests and commands are taken.
	Version, Client, Cancel, HTTP string

	// Bind is the address for gossip, on TCP and UDP; "": no cluster. Advertise is
	// how others reach it, if that differs.
	Bind, Advertise string
	// Join are gossip addresses of some of the others. They are tried until one answers.
	Join []string
	// Key encrypts all gossip: 16, 24 or 32 bytes; none: in the clear.
	Key []byte
	// Label keeps clusters apart that share a network.
	Label string
	// Dir is where votes and decrees are kept. Needed whenever Bind is set.
	Dir string

	// Voters are the IDs of those who vote, or Expect is their number; both matter at
	// the first start only, and neither makes a proxy that does not vote until it is
	// added. See founding in docs/failover.md.
	Voters []string
	Expect int

	// Heartbeat, Election and Lease are the times of docs/failover.md; Drift is by
	// how much one proxy's clock may run faster than another's (0.01: one percent).
	Heartbeat, Election, Lease time.Duration
	Drift                      float64

	// Received takes what another member has sent with Forward. It must not block.
	Received func(from string, body []byte)

	Log *slog.Logger

	transport func(host string, port int) (memberlist.Transport, error) // tests put a fault in the way
}

// Defaults for what is left zero in Options.
const (
	DefaultHeartbeat = 100 * time.Millisecond
	DefaultElection  = time.Second
	DefaultLease     = 4 * time.Second
	DefaultDrift     = 0.01
)

// MaxID bounds Options.ID, in bytes.
const MaxID = 64

func (o *Options) setDefaults() {
	if o.Heartbeat == 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.Election == 0 {
		o.Election = DefaultElection
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Drift == 0 {
		o.Drift = DefaultDrift
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Check finds what makes no sense. It is what Start refuses.
func (o Options) Check() error {
	o.setDefaults()
	if o.ID == "" || len(o.ID) > MaxID {
		return fmt.Errorf("the id must have from 1 to %d bytes, not %d", MaxID, len(o.ID))
	}
	if err := CheckTimes(o.Heartbeat, o.Election, o.Lease, o.Drift); err != nil {
		return err
	}
	if o.Bind == "" {
		if len(o.Join) > 0 || len(o.Voters) > 1 || o.Expect > 1 {
			return errors.New("others are named, but there is no address to bind for them")
		}
		return nil
	}
	switch {
	case len(o.Version) > maxText || len(o.Client) > maxText || len(o.Cancel) > maxText || len(o.HTTP) > maxText:
		return fmt.Errorf("version and addresses must have at most %d bytes each", maxText)
	case o.Dir == "":
		return errors.New("votes must survive a restart: name a directory for them")
	case len(o.Voters) > 0 && o.Expect > 0:
		return errors.New("name the voters or expect a number of them, not both")
	case o.Expect < 0:
		return fmt.Errorf("cannot expect %d voters", o.Expect)
	}
	switch len(o.Key) {
	case 0, 16, 24, 32:
	default:
		return fmt.Errorf("the key must have 16, 24 or 32 bytes, not %d", len(o.Key))
	}
	return nil
}

// CheckTimes refuses times that leave no room for each other. Three rules:
//
//	election >= 5 x heartbeat
//	lease    >= 3 x election + 3 x heartbeat
//	0 < drift <= 0.1
//
// The first keeps a few lost heartbeats from costing the coordinator its office.
// The second lets a new coordinator be elected while the leases that the old one
// gave still run: they are renewed each third, so two thirds of one remain, and an
// election takes up to twice its time and a round trip. None of this is needed
// for safety, which rests on the wait of lease x (1 + drift) alone.
func CheckTimes(heartbeat, election, lease time.Duration, drift float64) error {
	switch {
	case heartbeat < time.Millisecond:
		return fmt.Errorf("the heartbeat must be at least 1ms, not %v", heartbeat)
	case election < 5*heartbeat:
		return fmt.Errorf("the election time must be at least 5 heartbeats, that is %v, not %v", 5*heartbeat, election)
	case lease < 3*election+3*heartbeat:
		return fmt.Errorf("the lease must be at least 3 election times and 3 heartbeats, that is %v, not %v", 3*election+3*heartbeat, lease)
	case drift <= 0 || drift > 0.1:
		return fmt.Errorf("the drift must be more than 0 and at most 0.1, not %v", drift)
	}
	return nil
}
