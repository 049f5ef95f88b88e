package bench

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server we started and measure.
type process struct {
	cmd  *exec.Cmd
	log  string // file with what it prints
	done chan struct{}
}

// start runs a program, as the user as if that is not nil, with its output in
// the file log. It does not outlive us, whatever ends us.
func start(as *syscall.Credential, log, program string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: Ctrl-C ends us first, and we end it. The death signal
	// comes when the thread that started it ends, which in Go is when we end:
	// the runtime keeps its threads.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	// Ends with the process, which stop kills and waits for.
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// unprivileged is nil unless we are root: then it is the user postgres if there
// is one, else nobody.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (p *process) stop() {
	p.cmd.Process.Kill()
	<-p.done
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// lastWords is the end of what the process printed.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 2000
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// usage is the processor time a process has used, all its threads together,
// those that have ended included.
type usage struct {
	exact time.Duration // its CPU-time clock, in nanoseconds
	ticks time.Duration // utime and stime of /proc/PID/stat, in clock ticks
}

// tick is the unit of /proc/PID/stat: USER_HZ is 100 on every architecture Go
// runs on (sysconf(_SC_CLK_TCK); proc(5)).
const tick = 10 * time.Millisecond

// usageOf reads both clocks of a process. The exact one is the clock that
// clock_getcpuclockid(3) names: its number is the inverted process id with the
// clock's kind, 2 for scheduled time, in the low three bits
// (include/linux/posix-timers_types.h).
func usageOf(pid int) (usage, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return usage{}, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	ticks, err := parseStat(string(stat))
	if err != nil {
		return usage{}, err
	}
	return usage{exact: time.Duration(t.Nano()), ticks: ticks}, nil
}

// parseStat returns utime plus stime of /proc/PID/stat, its fields 14 and 15.
// The second field is the command in parentheses and may hold anything, spaces
// and parentheses too, so counting starts after the last one.
func parseStat(stat string) (time.Duration, error) {
	_, rest, _ := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat: %q", stat)
	}
	var sum uint64
	for _, f := range fields[11:13] {
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %q: %w", stat, err)
		}
		sum += v
	}
	return time.Duration(sum) * tick, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// since is the processor time between two readings. The two clocks must tell
// the same, but for the rounding of utime and stime at both ends and a little
// slack for the moment between reading one and the other.
func (u usage) since(before usage) (time.Duration, error) {
	exact, ticks := u.exact-before.exact, u.ticks-before.ticks
	if slack := 4*tick + exact/50; (exact - ticks).Abs() > slack {
		return 0, fmt.Errorf("the CPU clocks disagree: %v by clock_gettime, %v by /proc/PID/stat", exact, ticks)
	}
	return exact, nil
}

// residentOf is the memory of a process that is in RAM, in bytes: VmRSS.
func residentOf(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status does not tell VmRSS", pid)
}
