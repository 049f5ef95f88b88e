package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// way is one way to the servers.
type way struct {
	name, host, port string
	http             string // of the proxy on the way, if there is one
}

func (w way) small() bool { return strings.HasSuffix(w.name, "connections") }

// verdict is what is known of one feature.
type verdict struct {
	feature string
	status  status
	detail  string // what was seen, or what is wrong
}

type status string

const (
	works  status = "ok"
	fails  status = "FAIL"
	absent status = "none" // the client has no such thing
)

// result is all that is known of one client.
type result struct {
	client   client
	version  string // "": not available
	verdicts []verdict
}

// copies of each program run at once. Their names keep their tables apart.
var copies = []string{"a", "b"}

// try runs the client's program in every way and judges each feature by the worst
// of what the copies said.
func (r *result) try(ctx context.Context, folder, built string, ways []way) error {
	direct := map[string]string{} // by feature: what was seen
	for _, w := range ways {
		copies := copies
		if r.client.alone && w.small() {
			copies = copies[:1]
		}
		if w.http != "" {
			if err := awaitFollower(ctx, w, r.client.prefix("a")+"_reads"); err != nil {
				return err
			}
		}
		before, err := followerReads(w.http)
		if err != nil {
			return err
		}
		said := make([][]verdict, len(copies))
		var group errgroup.Group
		for i, copied := range copies {
			group.Go(func() error {
				said[i] = r.runProgram(ctx, folder, built, w, copied)
				return nil
			})
		}
		_ = group.Wait()
		after, err := followerReads(w.http)
		if err != nil {
			return err
		}
		for _, v := range slices.Concat(said...) {
			if seen, ok := direct[v.feature]; !ok {
				direct[v.feature] = v.detail
			} else if v.status == works && v.detail != seen {
				v.status, v.detail = fails, fmt.Sprintf("saw %q, directly %q", v.detail, seen)
			}
			if v.feature == "reads" && w.http != "" && before == after {
				v.status, v.detail = fails, "no follower served a read"
			}
			r.add(v, w)
		}
		r.complete(said, w)
	}
	fmt.Fprintf(os.Stderr, "%s: %d features\n", r.client.name, len(r.verdicts))
	return nil
}

// add folds one copy's verdict in. The first failure stays.
func (r *result) add(v verdict, w way) {
	if v.status == fails {
		fmt.Fprintf(os.Stderr, "%s %s: %s FAIL %s\n", r.client.name, w.name, v.feature, v.detail)
	}
	i := slices.IndexFunc(r.verdicts, func(known verdict) bool { return known.feature == v.feature })
	switch {
	case i < 0:
		r.verdicts = append(r.verdicts, v)
	case r.verdicts[i].status != fails:
		r.verdicts[i] = v
	}
}

// complete sees to it that every copy has spoken of every feature.
func (r *result) complete(said [][]verdict, w way) {
	for _, known := range slices.Clone(r.verdicts) {
		for _, verdicts := range said {
			if !slices.ContainsFunc(verdicts, func(v verdict) bool { return v.feature == known.feature }) {
				r.add(verdict{known.feature, fails, "not reached"}, w)
			}
		}
	}
}

// patience bounds one program's run. A statement that hangs ends with it.
const patience = time.Minute

// runProgram runs one copy of the client's program to its end. What goes wrong
// with the program as a whole is a feature of its own.
func (r *result) runProgram(ctx context.Context, folder, built string, w way, copied string) []verdict {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := r.client.command(ctx, folder, built)
	cmd.Env = append(os.Environ(),
		"PGHOST="+w.host, "PGPORT="+w.port, "PGSSLMODE=disable",
		"COMPAT_NAME="+r.client.prefix(copied))
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	// What it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	verdicts := parse(out.String())
	if err != nil {
		verdicts = append(verdicts, verdict{"program", fails, fmt.Sprintf("%v: %s", err, tail(diagnosis.String()))})
	}
	return verdicts
}

// parse reads a program's lines. Others are its own affair.
func parse(out string) (verdicts []verdict) {
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		feature, rest, _ := strings.Cut(lines.Text(), " ")
		word, detail, _ := strings.Cut(rest, " ")
		switch s := status(word); s {
		case works, fails, absent:
			verdicts = append(verdicts, verdict{feature, s, strings.TrimSpace(detail)})
		}
	}
	return verdicts
}

// tail is the end of a long text, on one line.
func tail(text string) string {
	text = oneLine(text)
	return text[max(0, len(text)-1000):]
}
