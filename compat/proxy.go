package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// smallPool is the size of the pools of the proxy that has to divide them: as few
// as two sessions that listen and one that notifies them need at the same moment.
const smallPool = 3

// server is a proxy with small pools.
type server struct {
	port, http string
	process    *exec.Cmd
}

// startProxy starts a proxy in front of the servers and waits until it is ready.
func startProxy(ctx context.Context, program string, servers []string) (*server, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &server{port: ports[0], http: net.JoinHostPort("127.0.0.1", ports[1])}
	args := []string{
		"serve", "--listen", net.JoinHostPort("127.0.0.1", s.port), "--set", "http=" + s.http,
		"--set", fmt.Sprint("pool.size=", smallPool), "--set", "log.level=warn",
	}
	for _, text := range servers {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		args = append(args, "--node", u.Host)
	}
	s.process = exec.Command(program, args...)
	s.process.Stderr = os.Stderr
	// It must not outlive us; main's thread does not end before we do.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// freePorts gives ports that were free a moment ago.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}

// await waits until all followers serve.
func (s *server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	want := len(strings.Fields(os.Getenv("LSNPROXY_FOLLOWERS")))
	for {
		if lines, err := metrics(s.http, `lsnproxy_node_state{`, `role="follower",state="usable"} 1`); err == nil && len(lines) == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the proxy with a small pool is not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) stop() {
	_ = s.process.Process.Signal(os.Interrupt)
	_ = s.process.Wait()
}

// followerReads counts the reads that followers have served so far through the
// proxy whose metrics are at addr.
func followerReads(addr string) (sum float64, err error) {
	if addr == "" {
		return 0, nil
	}
	lines, err := metrics(addr, "lsnproxy_reads_total{", `role="follower"}`)
	for _, line := range lines {
		n, bad := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if bad != nil {
			return 0, bad
		}
		sum += n
	}
	return sum, err
}

// metrics gives the lines of a proxy's metrics that begin with one text and hold
// another.
func metrics(addr, begin, hold string) (lines []string, err error) {
	answer, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	all := bufio.NewScanner(answer.Body)
	for all.Scan() {
		if line := all.Text(); strings.HasPrefix(line, begin) && strings.Contains(line, hold) {
			lines = append(lines, line)
		}
	}
	return lines, all.Err()
}
