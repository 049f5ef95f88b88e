package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestSwitchover: the leader changes again and again under pgbench, and no client gets
// an error.
func TestSwitchover(t *testing.T) { playSwitchovers(t, 2) }

func playSwitchovers(t *testing.T, times int) {
	cluster := pgtest.Start(t, pgcluster.Options{Followers: 2})
	f := attendedFleet(t, cluster, nil, "leader_wait=30s")
	host, port, err := net.SplitHostPort(f.members[0].clients)
	pgtest.Must(t, err)
	pgbench := func(args ...string) *exec.Cmd {
		cmd := exec.Command(cluster.Program("pgbench"), append([]string{"-h", host, "-p", port, "-U", "postgres"}, append(args, "postgres")...)...)
		cmd.Dir = t.TempDir()
		return cmd
	}
	if out, err := pgbench("-i", "-q", "-s", "4").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	load := pgbench("-c", "16", "-j", "2", "-T", "3600", "-l", "--log-prefix=load")
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	pgtest.Must(t, load.Start())
	ended := make(chan error, 1)
	// Ends with pgbench, which is interrupted below or by a failure.
	go func() { ended <- load.Wait() }()
	defer func() { _ = load.Process.Kill() }()

	for done := 0; done < times; {
		time.Sleep(time.Second)
		select {
		case err := <-ended:
			t.Fatalf("pgbench ended after %d switchovers: %v\n%s", done, err, said.String())
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if f.ready(ctx, 2) == nil {
			m := f.members[done%3] // whoever coordinates
			command := exec.CommandContext(ctx, f.program, "switchover", "--http", m.http)
			if done%2 == 1 {
				host, port, _ := net.SplitHostPort(m.clients)
				command = exec.CommandContext(ctx, cluster.Program("psql"), "-h", host, "-p", port, "-U", "postgres", "-c", "SWITCHOVER", "lsnproxy")
			}
			out, err := command.CombinedOutput()
			if err != nil {
				t.Errorf("switchover %d: %v\n%s", done+1, err, out)
			}
			done++
		}
		cancel()
	}
	time.Sleep(time.Second)
	_ = load.Process.Signal(syscall.SIGINT)
	<-ended
	if strings.Contains(said.String(), "ERROR") || strings.Contains(said.String(), "aborted") || strings.Contains(said.String(), "FATAL") {
		t.Errorf("clients got errors:\n%s", said.String())
	}
	count, longest := transactions(t, load.Dir)
	if count < 100 {
		t.Errorf("only %d transactions", count)
	}
	t.Logf("%d switchovers, %d transactions, the longest took %v", times, count, longest)
}

// transactions reads pgbench's logs ("Per-Transaction Logging" in its manual): how many
// there were, and how long the longest took.
func transactions(t *testing.T, dir string) (count int, longest time.Duration) {
	files, err := filepath.Glob(filepath.Join(dir, "load.*"))
	pgtest.Must(t, err)
	for _, name := range files {
		file, err := os.Open(name)
		pgtest.Must(t, err)
		for lines := bufio.NewScanner(file); lines.Scan(); count++ {
			fields := strings.Fields(lines.Text())
			if len(fields) > 2 {
				us, _ := strconv.Atoi(fields[2]) // an integer, or it is the last line, cut off
				longest = max(longest, time.Duration(us)*time.Microsecond)
			}
		}
		_ = file.Close()
	}
	return count, longest
}
