package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/election"
)

// ask is a switchover that somebody waits for.
type ask struct {
	wish   Wish
	epoch  uint64 // of the decree that stood
	leader string
	begun  time.Time
	reply  chan error // one slot
}

// Switchover has the leader changed while it lives, to the named node or, if that is
// "", to the best one, and waits until that is done or was given up. Only the
// coordinator does it; elsewhere the error is election.ErrNotCoordinator.
func (r *Runner) Switchover(ctx context.Context, to string) error {
	a := &ask{wish: Wish{To: to}, reply: make(chan error, 1)}
	select {
	case r.asks <- a:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-a.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take begins with what was asked for.
func (r *Runner) take(a *ask) {
	state := r.decider.State()
	d := state.Decree
	switch {
	case !state.Coordinates:
		a.reply <- election.ErrNotCoordinator
	case r.o.Mode != Promote:
		a.reply <- errors.New("failover.mode is observe: ask whoever promotes")
	case r.asked != nil:
		a.reply <- errors.New("a switchover is under way already")
	case d.Leader == "" || len(d.Plan) > 0:
		a.reply <- errors.New("a change of the leader is under way already")
	default:
		a.epoch, a.leader, a.begun = d.Epoch, d.Leader, time.Now()
		r.asked = a
	}
}

// answer tells whoever waits for a switchover how it ended.
func (r *Runner) answer(err error) {
	if r.asked != nil {
		r.asked.reply <- err
		r.asked = nil
	}
}

// settle answers once the decrees tell how it ended.
func (r *Runner) settle(state *election.State, d Decree) {
	a := r.asked
	switch {
	case a == nil:
	case !state.Coordinates:
		r.answer(errors.New("this proxy coordinates no longer; the next one goes on with what was begun"))
	case d.Epoch == a.epoch && time.Since(a.begun) > r.o.Drain:
		r.answer(fmt.Errorf("not begun within %v: %s", r.o.Drain, r.why))
	case d.Epoch == a.epoch || d.Leader == "" || d.Change != nil:
		// It has not begun, or is under way.
	case d.Leader == a.leader:
		r.answer(fmt.Errorf("the switchover was given up, %s leads as before: %s", d.Leader, r.outcome))
	default:
		r.answer(nil)
	}
}
