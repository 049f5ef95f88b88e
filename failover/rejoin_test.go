package failover

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// callerVariable makes the test binary run the program in that folder as rejoining
// does, instead of tests.
const callerVariable = "LSNPROXY_TEST_CALLER"

// A program that rejoining has started ends when lsnproxy is killed.
func TestProgramsDieWithTheirCaller(t *testing.T) {
	dir := t.TempDir()
	told := filepath.Join(dir, "pid")
	must(t, os.WriteFile(filepath.Join(dir, "program"), []byte("#!/bin/sh\necho $$ > "+told+"\nexec sleep 1000\n"), 0o755))
	caller := exec.Command(os.Args[0])
	caller.Env = append(os.Environ(), callerVariable+"="+dir)
	must(t, caller.Start())
	pid := 0
	eventually(t, "the program runs", func() bool {
		text, _ := os.ReadFile(told)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0
	})
	must(t, syscall.Kill(pid, 0))
	must(t, caller.Process.Kill())
	_ = caller.Wait()
	eventually(t, "the program has ended", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") // whoever inherits it reaps it when it likes
	})
}
