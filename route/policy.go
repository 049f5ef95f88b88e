package route

import (
	"fmt"
	"strings"
	"time"
)

// Level says what a read may miss. The zero Level is Session.
type Level uint8

// The levels.
const (
	LevelSession  Level = iota // nothing that the session has written or seen
	LevelLeader                // nothing: it runs on the leader
	LevelStrong                // nothing that anybody was told of before the read arrived
	LevelService               // nothing that anybody was told of through this proxy, nor that the session has seen
	LevelBounded               // what is newer than a bound
	LevelEventual              // anything
)

// LevelCount is how many levels there are.
const LevelCount = 6

var levelNames = [LevelCount]string{"session", "leader", "strong", "service", "bounded", "eventual"}

func (l Level) String() string { return levelNames[l] }

// ParseLevel reads the name of a level, without regard to case.
func ParseLevel(s string) (Level, error) {
	n, err := oneOf(s, levelNames[:])
	return Level(n), err
}

// UnmarshalText is ParseLevel for configurations.
func (l *Level) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLevel(string(text))
	return err
}

// Fallback says what becomes of a read for which no follower will do. The zero
// Fallback is to the leader.
type Fallback uint8

// The fallbacks.
const (
	FallLeader Fallback = iota // it runs on the leader
	FallError                  // it fails
	FallStale                  // it runs on a follower, whatever that one has applied
)

// FallbackCount is how many there are.
const FallbackCount = 3

var fallbackNames = [FallbackCount]string{"leader", "error", "stale"}

func (f Fallback) String() string { return fallbackNames[f] }

// ParseFallback reads the name of a fallback, without regard to case.
func ParseFallback(s string) (Fallback, error) {
	n, err := oneOf(s, fallbackNames[:])
	return Fallback(n), err
}

// UnmarshalText is ParseFallback for configurations.
func (f *Fallback) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFallback(string(text))
	return err
}

// Delivery says how a session's client gets its token. The zero Delivery is inline.
type Delivery uint8

// The deliveries.
const (
	DeliverInline Delivery = iota // with the answer to what it has written, before it is told that this is over
	DeliverLazy                   // with the answer to the first read for which it had to be known
	DeliverOff                    // when it asks for it
)

var deliveryNames = []string{"inline", "lazy", "off"}

func (d Delivery) String() string { return deliveryNames[d] }

// ParseDelivery reads the name of a delivery, without regard to case.
func ParseDelivery(s string) (Delivery, error) {
	n, err := oneOf(s, deliveryNames)
	return Delivery(n), err
}

// UnmarshalText is ParseDelivery for configurations.
func (d *Delivery) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDelivery(string(text))
	return err
}

// LostWrite says how a session is told that a failover may have lost what it has
// written. The zero LostWrite is an error.
type LostWrite uint8

// The ways.
const (
	LostError  LostWrite = iota // the next statement fails, once
	LostNotice                  // a notice; the statement runs
)

var lostNames = []string{"error", "notice"}

func (l LostWrite) String() string { return lostNames[l] }

// ParseLostWrite reads the name of a way, without regard to case.
func ParseLostWrite(s string) (LostWrite, error) {
	n, err := oneOf(s, lostNames)
	return LostWrite(n), err
}

// UnmarshalText is ParseLostWrite for configurations.
func (l *LostWrite) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLostWrite(string(text))
	return err
}

func oneOf(s string, names []string) (int, error) {
	for i, name := range names {
		if strings.EqualFold(s, name) {
			return i, nil
		}
	}
	last := len(names) - 1
	return 0, fmt.Errorf("must be %s or %s", strings.Join(names[:last], ", "), names[last])
}

// Policy is what a session's reads may miss, how long they may wait, what becomes
// of them then, and how the session hears of its writes.
type Policy struct {
	Level Level
	// The bound of LevelBounded: how old what is missed may be at most, and how
	// much log it may be. 0: no bound of that kind.
	MaxAge   time.Duration
	MaxBytes uint64

	Wait       time.Duration // for a follower that will do
	Waits      [LevelCount]LevelWait
	Spent      Fallback // when that is over
	NoFollower Fallback // when no follower is usable at all

	// Optimistic lets explicit transactions begin on a follower, and go on on the
	// leader from the first statement on that is not a read.
	Optimistic bool

	Delivery Delivery  // of its token
	Lost     LostWrite // how it is told of writes that a failover may have lost
}

// Remembers reports whether reads must not miss what the session has written
// and seen.
func (p *Policy) Remembers() bool {
	switch p.Level {
	case LevelSession, LevelStrong, LevelService:
		return true
	default:
		return false
	}
}

// LevelWait is what a level has in the place of Policy.Wait, if it is set.
type LevelWait struct {
	Set  bool
	Time time.Duration
}

// Budget is how long reads wait at the level.
func (p *Policy) Budget() time.Duration {
	if w := &p.Waits[p.Level]; w.Set {
		return w.Time
	}
	return p.Wait
}
