package pgcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Node is one server of a Cluster: its data folder, its address, and the
// process while it runs. Its role may change. Methods may be called by several
// goroutines.
type Node struct {
	cluster *Cluster
	name    string
	folder  string // of the node; the data folder is folder/data
	port    int
	link    *Link // nil unless Options.Faults
	host    *Host // nil: this one

	mu     sync.Mutex
	server *server // the latest run; nil before the first
}

// server is one run of a node's postmaster.
type server struct {
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended and was waited for
	segment atomic.Int64  // number of its System V segment; -1 until it was ready
}

func (s *server) ended() bool {
	if s == nil {
		return true
	}
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Mode says how a server is stopped ("Shutting Down the Server" in the manual).
type Mode int

// The modes, as pg_ctl names them.
const (
	Fast      Mode = iota // ends every session, then writes a checkpoint
	Immediate             // ends at once, as in a crash, but gives shared memory back
	Smart                 // waits until every client has left
)

func (m Mode) signal() os.Signal {
	return [...]os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}[m]
}

// Name is the node's name, node1 and so on. It is also its cluster_name, its
// application_name as a follower and the name of the slot it streams from.
func (n *Node) Name() string { return n.name }

// Addr is host:port of what a client uses: the fault proxy if there is one.
func (n *Node) Addr() string {
	if n.link != nil {
		return n.link.Addr()
	}
	return n.ServerAddr()
}

// ServerAddr is host:port of the server itself.
func (n *Node) ServerAddr() string { return net.JoinHostPort(n.address(), strconv.Itoa(n.port)) }

// Host is where the node runs; nil unless Options.Hosts.
func (n *Node) Host() *Host { return n.host }

// address is that of its host.
func (n *Node) address() string {
	if n.host != nil {
		return n.host.Address
	}
	return host
}

// URL is a connection string for the superuser, through Addr.
func (n *Node) URL(database string) string { return url(n.Addr(), database) }

func url(address, database string) string {
	return "postgres://" + superuser + "@" + address + "/" + database + "?sslmode=disable"
}

// LogFile is what the server prints; "" if Options.Log was given.
func (n *Node) LogFile() string {
	if n.cluster.log != nil {
		return ""
	}
	return filepath.Join(n.folder, "log")
}

// DataDir is the server's data folder.
func (n *Node) DataDir() string { return filepath.Join(n.folder, "data") }

// Network is the fault proxy in front of the node; nil unless Options.Faults.
func (n *Node) Network() *Link { return n.link }

// Running reports whether the server's process exists.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.server.ended()
}

// WriteFile writes a file into the data folder, readable by the server alone:
// pg_hba.conf, a certificate and its key. Reload makes the server read it.
func (n *Node) WriteFile(name string, content []byte) error {
	path := filepath.Join(n.DataDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return n.cluster.account.own(path)
}

// Start starts the server and waits until it accepts connections. It is an error
// if it runs already, or ends instead; the error then holds the end of its log.
// When ctx ends first, the server goes on starting.
func (n *Node) Start(ctx context.Context) error {
	s, err := n.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	if err := n.awaitReady(ctx, s); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	return nil
}

// launch starts the postmaster and does not wait for it.
func (n *Node) launch() (*server, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.server.ended() {
		return nil, errors.New("it runs already")
	}
	if n.cluster.stopped.Load() {
		return nil, errors.New("the cluster was stopped")
	}
	// What depends on the node, and must survive pg_rewind, which copies the
	// configuration files of another one, is given on the command line.
	cmd := n.cluster.account.command(n.DataDir(), n.cluster.Program("postgres"), "-D", n.DataDir(),
		"-c", "listen_addresses="+n.address(),
		"-c", "port="+strconv.Itoa(n.port),
		"-c", "unix_socket_directories=",
		"-c", "cluster_name="+n.name,
		"-c", "primary_slot_name="+n.name)
	var output io.Writer = n.cluster.log
	if output == nil {
		f, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		output = f
	}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second // a child may hold the log's pipe a little longer
	start := cmd.Start
	if n.host != nil {
		start = func() error { return n.host.Start(cmd) }
	}
	if err := start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, done: make(chan struct{})}
	s.segment.Store(-1)
	// Ends with the server, which Stop, Kill or the watchdog ends; whoever needs
	// to know waits for done.
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(s.done)
	}()
	n.server = s
	return s, nil
}

// awaitReady waits until the server accepts connections, which the postmaster
// writes into its lock file (miscadmin.h tells the lines; pg_ctl waits for the same).
func (n *Node) awaitReady(ctx context.Context, s *server) error {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not accept connections yet: %w%s", context.Cause(ctx), n.logTail())
		case <-s.done:
			return &exitError{log: n.logTail()}
		case <-tick.C:
		}
		file, _ := os.ReadFile(filepath.Join(n.DataDir(), "postmaster.pid")) // not there yet, at first
		lines := strings.Split(string(file), "\n")
		if len(lines) <= 7 || lines[0] != pid || strings.TrimSpace(lines[7]) != "ready" {
			continue
		}
		var key, segment int64
		if _, err := fmt.Sscan(lines[6], &key, &segment); err == nil {
			s.segment.Store(segment)
		}
		return nil
	}
}

// exitError says that a server ended while it was to start.
type exitError struct{ log string }

func (e *exitError) Error() string { return "it ended at once" + e.log }

// logTail is the end of the log file on lines of its own, or "".
func (n *Node) logTail() string {
	const most = 2000
	log, err := os.ReadFile(n.LogFile())
	if err != nil {
		return ""
	}
	return "\n" + strings.TrimSpace(string(log[max(0, len(log)-most):]))
}

// Stop stops the server and waits until it has ended. Fast and Smart wait for
// the followers to have received everything, Smart for every client to leave.
func (n *Node) Stop(mode Mode) error {
	n.mu.Lock()
	s := n.server
	n.mu.Unlock()
	if s.ended() {
		return fmt.Errorf("stop %s: it does not run", n.name)
	}
	if err := s.cmd.Process.Signal(mode.signal()); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", n.name, err)
	}
	<-s.done
	return nil
}

// Restart stops the server in mode Fast and starts it again.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Stop(Fast); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Kill ends the postmaster and all its children with SIGKILL, as when the
// machine fails, and waits until they are gone.
func (n *Node) Kill() error {
	n.mu.Lock()
	s := n.server
	n.mu.Unlock()
	if s.ended() {
		return fmt.Errorf("kill %s: it does not run", n.name)
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", n.name, err)
	}
	for {
		ended := s.ended() // before looking: nothing is forked after it
		children, err := processesIn(n.DataDir())
		if err != nil {
			return fmt.Errorf("kill %s: %w", n.name, err)
		}
		if ended && len(children) == 0 {
			break
		}
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
		time.Sleep(time.Millisecond)
	}
	// Nor does a segment outlive its machine. If nobody starts the server again,
	// this one would stay for ever.
	if segment := s.segment.Load(); segment >= 0 {
		_, _ = unix.SysvShmCtl(int(segment), unix.IPC_RMID, nil) // it may be gone
	}
	return nil
}

// Command prepares a program to run as the server's user, in the node's folder.
func (n *Node) Command(program string, args ...string) *exec.Cmd {
	return n.cluster.account.command(n.folder, program, args...)
}

// Freeze stops the server's processes where they are (SIGSTOP), as a machine that
// hangs: connections stay open and nothing answers. Thaw ends that; Kill and the
// watchdog end frozen ones too.
func (n *Node) Freeze() error { return n.signalAll("freeze", syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (n *Node) Thaw() error { return n.signalAll("thaw", syscall.SIGCONT) }

func (n *Node) signalAll(what string, s syscall.Signal) error {
	// More than once, because a process may have been forked meanwhile.
	for range 3 {
		pids, err := processesIn(n.DataDir())
		if err == nil && len(pids) == 0 {
			err = errors.New("it does not run")
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, n.name, err)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, s) // it may have ended meanwhile
		}
	}
	return nil
}

// processesIn lists the server processes whose working folder is dir. A server
// and its children stay in their data folder for life, each child in a session
// of its own, so that neither a process group nor a parent would find them all.
func processesIn(dir string) ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		cwd, err := os.Readlink("/proc/" + name + "/cwd")
		if err != nil || strings.TrimSuffix(cwd, " (deleted)") != dir {
			continue
		}
		comm, err := os.ReadFile("/proc/" + name + "/comm")
		if err == nil && bytes.Contains(comm, []byte("postgres")) { // not a person's shell
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
