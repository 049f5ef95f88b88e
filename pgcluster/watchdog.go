package pgcluster

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

//go:embed watchdog.sh
var watchdogScript string

// watchdog is a child process that ends the servers and removes their folders
// when the caller does: it reads from a pipe that only the caller can write to,
// and the kernel closes that when the caller exits or is killed. A child that
// the caller had forked but that was not yet a server keeps the pipe open until
// it is one, so that none is missed.
type watchdog struct {
	cmd  *exec.Cmd
	pipe *os.File
	errs bytes.Buffer
}

// startWatchdog watches over the servers in the node folders. It removes these
// unless keep is called, and own if it is not empty. lock stays open in the
// child, and so locked until the servers are gone.
func startWatchdog(lock *os.File, own string, nodes []string) (*watchdog, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	d := &watchdog{pipe: w}
	d.cmd = exec.Command("/bin/sh", append([]string{"-c", watchdogScript, "lsnproxy-watchdog", own}, nodes...)...)
	d.cmd.Dir = "/"
	d.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	d.cmd.Stdin = r
	d.cmd.Stderr = &d.errs
	d.cmd.ExtraFiles = []*os.File{lock}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return d, nil
}

// keep tells the watchdog to leave the node folders in place.
func (d *watchdog) keep() error {
	_, err := d.pipe.WriteString("keep\n")
	return err
}

// finish lets the watchdog do its work and waits for it.
func (d *watchdog) finish() error {
	d.pipe.Close()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("watchdog: %w: %s", err, strings.TrimSpace(d.errs.String()))
	}
	return nil
}
