package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runCommand runs a command in the caller's place and answers with its exit
// status. It ends when the command does. Signals are passed on to it, except an
// interrupt from the terminal, which reaches it by itself.
func runCommand(command, environment []string, signals <-chan os.Signal) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// If we are killed the command must not go on without its servers. The signal
	// comes when the thread that started it ends; the runtime keeps its threads.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	// Ends with the command, which is waited for here.
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != os.Interrupt || !inForeground() {
				_ = cmd.Process.Signal(s) // it may have ended meanwhile
			}
		case err := <-ended:
			return statusOf(err)
		}
	}
}

// inForeground reports whether we belong to the terminal's foreground process
// group, all of which gets the interrupt key's signal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// statusOf is the exit status that a shell would give: 128 and the signal's
// number for a command that a signal has ended.
func statusOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitStatus(128 + int(w.Signal()))
	}
	return exitStatus(exit.ExitCode())
}

// clearPG takes libpq's variables ("Environment Variables" in its manual) out of
// our environment and returns those that say how a session behaves, as
// name=value. pgx heeds such variables, and whom the proxy connects to, and as
// whom, is not for them to say.
func clearPG() (behaviour []string) {
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "PG_") {
			continue
		}
		switch name {
		case "PGOPTIONS", "PGAPPNAME", "PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGTZ", "PGDATESTYLE", "PGGEQO":
			behaviour = append(behaviour, e)
		}
		_ = os.Unsetenv(name) // fails for an empty name only
	}
	return behaviour
}

// environment is the command's: ours, with the proxy and the servers in it.
func (d *demo) environment(behaviour []string) []string {
	clients, web := d.doors()
	host, port, _ := net.SplitHostPort(clients[0]) // written by ourselves
	var ports []string
	for _, address := range clients {
		_, p, _ := net.SplitHostPort(address)
		ports = append(ports, p)
	}
	var followers []string
	for _, n := range d.cluster.Followers() {
		followers = append(followers, n.URL("postgres"))
	}
	return slices.Concat(os.Environ(), behaviour, []string{
		"PGHOST=" + host, "PGPORT=" + port, "PGUSER=postgres", "PGDATABASE=postgres",
		"LSNPROXY_HTTP=" + web, "LSNPROXY_PORTS=" + strings.Join(ports, " "),
		"LSNPROXY_LEADER=" + d.cluster.Leader().URL("postgres"),
		"LSNPROXY_FOLLOWERS=" + strings.Join(followers, " "),
	})
}

// connectTo is where to connect to reach a listening address: its own host,
// unless it listens everywhere.
func connectTo(listening net.Addr) (host, port string) {
	a := listening.(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return "127.0.0.1", strconv.Itoa(a.Port)
	}
	return a.IP.String(), strconv.Itoa(a.Port)
}
