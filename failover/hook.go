package failover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Hooks are commands that are run at certain moments, with an Event as JSON on their
// standard input. Promote and Repoint are run instead of SQL that a node refuses, and
// must succeed; the others are told and not waited for. An empty one is not run.
type Hooks struct {
	Suspect, Fence, Promote, Repoint, Rejoin []string
}

// Event is what a hook is told.
type Event struct {
	Hook      string  `json:"hook"`
	Node      string  `json:"node,omitempty"`   // whom it is about
	Leader    string  `json:"leader,omitempty"` // whom Node should follow
	OldLeader string  `json:"old_leader,omitempty"`
	Timeline  uint32  `json:"timeline"` // the newest
	Epoch     uint64  `json:"epoch"`
	Trigger   Trigger `json:"trigger,omitempty"`
	Why       string  `json:"why"`
}

// hooks runs them.
type hooks struct {
	commands Hooks
	timeout  time.Duration
	log      *slog.Logger
	running  sync.WaitGroup
}

func (h *hooks) command(hook string) []string {
	switch hook {
	case "suspect":
		return h.commands.Suspect
	case "fence":
		return h.commands.Fence
	case "promote":
		return h.commands.Promote
	case "repoint":
		return h.commands.Repoint
	default:
		return h.commands.Rejoin
	}
}

// stands gives the hook that stands in for SQL.
func stands(do Do) string {
	switch do {
	case Open:
		return "promote"
	case Point:
		return "repoint"
	case ReadOnly:
		return "fence"
	default:
		return ""
	}
}

func (h *hooks) can(do Do) bool { return stands(do) != "" && len(h.command(stands(do))) > 0 }

// instead runs the hook for what SQL could not do.
func (h *hooks) instead(ctx context.Context, e Event, why error) error {
	e.Why = firstLine(why)
	if err := h.run(context.WithoutCancel(ctx), e); err != nil {
		return fmt.Errorf("%w; and hook %s: %w", why, e.Hook, err)
	}
	return nil
}

// tell runs a hook and does not wait for it.
func (h *hooks) tell(e Event) {
	if len(h.command(e.Hook)) == 0 {
		return
	}
	// Ends with the command, which its time limit ends; wait waits for it.
	h.running.Go(func() {
		if err := h.run(context.Background(), e); err != nil {
			h.log.Warn("hook failed", "hook", e.Hook, "node", e.Node, "error", err)
		}
	})
}

func (h *hooks) wait() { h.running.Wait() }

func (h *hooks) run(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	input, err := json.Marshal(e)
	if err != nil {
		return err
	}
	command := h.command(e.Hook)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(append(input, '\n'))
	cmd.WaitDelay = time.Second // a child may hold the output a little longer
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(output[max(0, len(output)-500):])))
	}
	h.log.Info("hook done", "hook", e.Hook, "node", e.Node)
	return nil
}

// event is what a hook is told about a step.
func (r *Runner) event(s Step, in *Input) Event {
	e := Event{Hook: stands(s.Do), Node: s.Node, Leader: s.To, Timeline: in.Decree.Timeline, Epoch: in.Decree.Epoch, Why: s.Why}
	if c := in.Decree.Change; c != nil {
		e.OldLeader, e.Trigger = c.Old, c.Trigger
	}
	return e
}

// hook tells the hooks what has happened, once each.
func (r *Runner) hook(s Step, in *Input) {
	once := func(key string, e Event) {
		if r.hooked == nil {
			r.hooked = make(map[string]bool)
		}
		if !r.hooked[key] {
			r.hooked[key] = true
			r.hooks.tell(e)
		}
	}
	event := r.event(s, in)
	c := in.Decree.Change
	switch {
	case s.Phase == Suspect, s.Phase == Agree, s.Do == Decide && s.Decree.Change != nil && s.Decree.Change.Trigger == Failover && in.Decree.Leader != "":
		event.Hook, event.Node = "suspect", in.Decree.Leader
		once("suspect", event)
	case s.Do == Wait && s.Phase != Steady && c != nil && c.Trigger == Failover && in.Decree.Leader == "" && in.Fenced:
		event.Hook, event.Node = "fence", c.Old
		once("fence", event)
	}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if in.Mode == Promote && in.Decree.Leader != "" && in.stray(n) {
			once("rejoin "+n.Address, Event{
				Hook: "rejoin", Node: n.Address, Leader: in.Decree.Leader, Timeline: in.Decree.Timeline,
				Epoch: in.Decree.Epoch, Why: fmt.Sprintf("it is on timeline %d", n.Timeline),
			})
		}
	}
}

// stray reports whether a node has to be rewound to be a follower again: it leads an
// older timeline, or has replayed what the newest one does not have. What it has only
// received does not count: a part of a record that nobody has the rest of is no harm.
func (in *Input) stray(n *Node) bool {
	if !n.ok() || !in.ours(n) || n.Address == in.Decree.Leader {
		return false
	}
	if !n.Follower {
		return n.Timeline < in.Decree.Timeline
	}
	leader := in.node(in.Decree.Leader)
	return n.Timeline < in.Decree.Timeline && leader != nil && leader.Switched != 0 && n.Replayed > leader.Switched
}
