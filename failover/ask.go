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

func (a *ask) answer(err error) {
	select {
	case a.reply <- err:
	default: // it has been answered
	}
}

// Switchover has the leader changed while it lives, to the named node or to the best
// one, and waits until that is done or was given up. It may be asked of any proxy: the
// coordinator is told with the next report.
func (r *Runner) Switchover(ctx context.Context, to string) (leader string, err error) {
	if r.o.Mode != Promote {
		return "", errors.New("failover.mode is observe: whoever promotes must be asked")
	}
	a := &ask{wish: Wish{To: to}, reply: make(chan error, 1)}
	select {
	case r.asks <- a:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	select {
	case err = <-a.reply:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return r.decider.State().Decree.Leader, err
}

// take begins with what was asked for.
func (r *Runner) take(a *ask) {
	d := r.decider.State().Decree
	switch {
	case r.asked != nil:
		a.answer(errors.New("a switchover is under way already"))
		return
	case d.Leader == "":
		a.answer(errors.New("there is no leader now"))
		return
	case len(d.Plan) > 0:
		a.answer(errors.New("the last change of the leader is not over yet"))
		return
	}
	a.epoch, a.leader, a.begun = d.Epoch, d.Leader, time.Now()
	r.asked = a
}

// refuse answers whoever asked here. Whoever asked another proxy is told by that one.
func (r *Runner) refuse(s Step) {
	if r.asked == nil {
		r.denied = r.epoch
		r.o.Log.Warn("switchover refused", "why", s.Why)
		return
	}
	r.asked.answer(errors.New(s.Why))
	r.asked = nil
}

// follow answers whoever waits for a switchover once the decrees tell how it ended.
func (r *Runner) follow(state *election.State, d Decree) {
	a := r.asked
	switch {
	case a == nil:
	case d.Epoch == a.epoch && time.Since(a.begun) > r.o.Drain:
		a.answer(fmt.Errorf("not begun within %v: is there a coordinator? %s", r.o.Drain, state.Trouble))
		r.asked = nil
	case d.Epoch == a.epoch || d.Leader == "" || d.Change != nil && d.Leader != a.leader:
		// It has not begun, or is under way.
	case d.Leader == a.leader:
		a.answer(errors.New("the switchover was given up, " + d.Leader + " leads as before; the coordinator's log says why"))
		r.asked = nil
	default:
		a.answer(nil)
		r.asked = nil
	}
}
