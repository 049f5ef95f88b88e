package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// Environment is what the numbers were measured on and with.
type Environment struct {
	Kernel, CPU string
	Cores       int
	PostgreSQL  string
	PgBouncer   string // "" if it was not measured
	Commit      string // of the tree we run in, with -dirty if it is changed
}

func environment(ctx context.Context, o Options, c *pgcluster.Cluster) (Environment, error) {
	e := Environment{CPU: cpuModel(), Cores: cores(), Commit: "unknown"}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return e, err
	}
	e.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	conn, err := pgx.Connect(ctx, c.Leader().URL("postgres"))
	if err != nil {
		return e, err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&e.PostgreSQL); err != nil {
		return e, err
	}
	if slices.Contains(o.Systems, "pgbouncer") {
		if e.PgBouncer, err = pgbouncerVersion(o.PgBouncer); err != nil {
			return e, err
		}
	}
	if commit, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		e.Commit = strings.TrimSpace(string(commit))
	}
	return e, nil
}

// cores is how many processors we may use.
func cores() int { return runtime.NumCPU() }

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH // not every architecture names its model
}

// loadAverage is the first number of /proc/loadavg: on a busy machine, a
// warning about the run that follows.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	v, _ := strconv.ParseFloat(first, 64) // 0 if the kernel's format ever changes
	return v
}

func most(values []int) int {
	if len(values) == 0 {
		return 0
	}
	return slices.Max(values)
}

func (e Environment) String() string {
	text := fmt.Sprintf("%s, %d cores, Linux %s, PostgreSQL %s", e.CPU, e.Cores, e.Kernel, e.PostgreSQL)
	if e.PgBouncer != "" {
		text += ", " + e.PgBouncer
	}
	return text + ", commit " + e.Commit
}
