package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// Crowd measures many clients over few server connections: what a login costs, what
// an idle client costs, and whether all are served alike.
type Crowd struct {
	Options          // Pool server connections to each server, Seconds, Followers, Proxy, PgBouncer
	Many      int    // clients
	Processes int    // that they are in: each may open only so many files
	Program   string // runs RunClients with its arguments
}

// Served is what one system did for the crowd.
type Served struct {
	System       string
	Clients      int
	Login        time.Duration // until all were connected
	LoginCPU     time.Duration // of the system, for each
	Churn        float64       // clients that came, asked once and left, per second
	ChurnCPU     time.Duration // of the system, for each
	Before, Idle int64         // bytes resident, without clients and with all of them idle
	Queries      []uint32      // by client
	CPU          time.Duration // of the system, for each query
	Errors       int
	First        string // of the errors
}

// String tells it in one line.
func (s Served) String() string {
	slices.Sort(s.Queries)
	at := func(part float64) uint32 { return s.Queries[int(part*float64(len(s.Queries)-1))] }
	return fmt.Sprintf("%s: %d clients logged in within %v (%v of CPU each), %d bytes for each idle one; queries by client:"+
		" min %d, 1%% %d, median %d, 99%% %d, max %d (%v of CPU each); %.0f short visits a second (%v of CPU each); %d errors %s",
		s.System, s.Clients, s.Login.Round(time.Millisecond), s.LoginCPU, (s.Idle-s.Before)/int64(s.Clients),
		at(0), at(0.01), at(0.5), at(0.99), at(1), s.CPU, s.Churn, s.ChurnCPU, s.Errors, s.First)
}

// Run measures each system in turn.
func (c Crowd) Run(ctx context.Context) ([]Served, error) {
	c.Workloads, c.Modes, c.Clients = []string{"select-only"}, []string{"simple"}, []int{c.Many}
	if err := c.find(); err != nil {
		return nil, err
	}
	cluster, err := pgcluster.Start(ctx, pgcluster.Options{Followers: c.Followers, PGBin: c.PGBin, Settings: map[string]string{"max_connections": fmt.Sprint(2*c.Pool + 100)}})
	if err != nil {
		return nil, err
	}
	defer cluster.Stop()
	if err := cluster.WaitStreaming(ctx); err != nil {
		return nil, err
	}
	l, err := startLineup(ctx, c.Options, cluster)
	if err != nil {
		return nil, err
	}
	defer l.stop()
	var all []Served
	for _, s := range l.systems {
		if s.server == nil {
			continue
		}
		served, err := c.serve(ctx, s)
		if err != nil {
			return all, fmt.Errorf("%s: %w", s.name, err)
		}
		c.Progress(served.String())
		all = append(all, served)
	}
	return all, nil
}

// serve has one system serve the crowd.
func (c Crowd) serve(ctx context.Context, s *system) (Served, error) {
	served := Served{System: s.name, Clients: c.Many}
	pid := s.server.cmd.Process.Pid
	err := c.cost(pid, &served.ChurnCPU, func() (int, error) { // first, so that the pool is open
		answers, err := c.clients(ctx, s.address, "visit", nil)
		visits := served.add(answers)
		served.Churn = float64(visits) / float64(c.Seconds)
		return visits, err
	})
	if err != nil {
		return served, err
	}
	served.Queries = nil
	if served.Before, err = residentOf(pid); err != nil {
		return served, err
	}
	begun, before := time.Now(), usage{}
	if before, err = usageOf(pid); err != nil {
		return served, err
	}
	answers, err := c.clients(ctx, s.address, "stay", func() error { // all are connected
		served.Login = time.Since(begun)
		after, err := usageOf(pid)
		if err != nil {
			return err
		}
		served.LoginCPU = (after.exact - before.exact) / time.Duration(c.Many)
		before = after
		served.Idle, err = residentOf(pid)
		return err
	})
	if err != nil {
		return served, err
	}
	after, err := usageOf(pid)
	if n := served.add(answers); n > 0 {
		served.CPU = (after.exact - before.exact) / time.Duration(n)
	}
	return served, err
}

// cost is the processor time of a process for each of what run counts.
func (c Crowd) cost(pid int, each *time.Duration, run func() (int, error)) error {
	before, err := usageOf(pid)
	if err != nil {
		return err
	}
	n, err := run()
	if err != nil {
		return err
	}
	after, err := usageOf(pid)
	*each = (after.exact - before.exact) / time.Duration(max(n, 1))
	return err
}

// add takes in what the processes counted, and returns the sum.
func (s *Served) add(answers []tally) (sum int) {
	for _, a := range answers {
		s.Queries = append(s.Queries, a.Queries...)
		s.Errors += a.Errors
		s.First = cmp.Or(s.First, a.First)
		for _, n := range a.Queries {
			sum += int(n)
		}
	}
	return sum
}

// clients runs the processes with the clients. Each says when its clients are
// connected; when all have, connected is called, and they are told to go on.
func (c Crowd) clients(ctx context.Context, address, what string, connected func() error) ([]tally, error) {
	type child struct {
		*exec.Cmd
		in  io.WriteCloser
		out *bufio.Reader
	}
	var children []child
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range c.Processes {
		n := c.Many*(i+1)/c.Processes - c.Many*i/c.Processes
		cmd := exec.CommandContext(ctx, c.Program, "-clients-of", address, what, fmt.Sprint(n), fmt.Sprint(c.Seconds))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		children = append(children, child{cmd, in, bufio.NewReader(out)})
	}
	defer func() {
		cancel()
		for _, x := range children {
			_ = x.Wait()
		}
	}()
	for _, x := range children {
		if line, err := x.out.ReadString('\n'); err != nil {
			return nil, fmt.Errorf("clients did not connect: %s %w", strings.TrimSpace(line), err)
		}
	}
	if connected != nil {
		if err := connected(); err != nil {
			return nil, err
		}
	}
	for _, x := range children {
		if _, err := io.WriteString(x.in, "go\n"); err != nil {
			return nil, err
		}
	}
	answers := make([]tally, len(children))
	for i, x := range children {
		if err := json.NewDecoder(x.out).Decode(&answers[i]); err != nil {
			return nil, err
		}
	}
	return answers, nil
}
