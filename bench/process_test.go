package bench

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rusage is our own processor time by a third way.
func rusage(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestUsage holds the CPU clock against getrusage, over work done on a thread
// that ends before the second reading: its time must not be lost.
func TestUsage(t *testing.T) {
	before, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	outer := rusage(t)
	done := make(chan struct{})
	go func() { // ends by itself and takes its thread with it; awaited below
		defer close(done)
		runtime.LockOSThread() // never unlocked, so the thread ends too
		for start := rusage(t); rusage(t)-start < 200*time.Millisecond; {
		}
	}()
	<-done
	inner := rusage(t) - outer
	after, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	spent, err := after.since(before)
	if err != nil {
		t.Fatal(err)
	}
	if inner < 200*time.Millisecond || spent < inner-time.Millisecond {
		t.Errorf("CPU clock %v, getrusage within it %v", spent, inner)
	}
}

func TestUsageClocksDisagree(t *testing.T) {
	second := usage{exact: time.Second, ticks: time.Second}
	if got, err := second.since(usage{}); err != nil || got != time.Second {
		t.Errorf("%v, %v", got, err)
	}
	// Threads that ended and were lost: a tenth of the time is missing.
	if _, err := (usage{exact: 900 * time.Millisecond, ticks: time.Second}).since(usage{}); err == nil {
		t.Error("a tenth lost and not noticed")
	}
}

func TestParseStat(t *testing.T) {
	stat := "4711 (a ) (name) S 1 4711 4711 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 7 0 12345 1 2 3\n"
	if got, err := parseStat(stat); err != nil || got != 3*time.Second {
		t.Errorf("%v, %v, want 3s", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "1 (x) S 1 4711 4711 0 -1 4194560 9 0 0 0 a b 0 0"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestResident(t *testing.T) {
	if rss, err := residentOf(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("%d bytes, %v", rss, err)
	}
}

func TestProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := start(nil, log, "/bin/sh", "-c", "echo ready; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	if !p.running() {
		t.Error("not running")
	}
	p.stop()
	if p.running() {
		t.Error("still running")
	}
	p, err = start(nil, log, "/bin/sh", "-c", "echo no such luck >&2; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if got := p.lastWords(); got != "no such luck" {
		t.Errorf("last words %q", got)
	}
	p.stop() // of a process that has ended: nothing to do
}
