package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Rejoin says how to make an old leader, or a follower that has diverged, a follower of
// the present leader. It works on files and so runs on the server's own host, as the
// server's user.
type Rejoin struct {
	Data   string // the server's data folder
	Source string // connection string to the leader, for rewinding and for replication
	Bin    string // folder of PostgreSQL's programs
	Slot   string // to receive by; "": the one the server is configured with, if any
	Log    *slog.Logger

	// Command prepares a program; nil for one that runs as ourselves.
	Command func(program string, args ...string) *exec.Cmd
}

// Run stops the server if it runs and makes it a follower, which is not started. If
// it cannot be rewound, a fresh copy of the leader takes the place of its folder, which
// is kept beside it: it may hold what nobody else has.
func (r *Rejoin) Run(ctx context.Context) error {
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(filepath.Join(r.Data, "PG_VERSION")); err != nil {
		return fmt.Errorf("%s is no data folder of a server: %w", r.Data, err)
	}
	if err := r.checkSource(ctx); err != nil {
		return fmt.Errorf("the leader: %w", err)
	}
	if err := r.stop(ctx); err != nil {
		return err
	}
	slot := r.Slot
	if slot == "" {
		// Asked before, because a rewind copies the leader's settings.
		out, err := r.run(ctx, "postgres", "-D", r.Data, "-C", "primary_slot_name")
		if err != nil {
			return err
		}
		slot = strings.TrimSpace(out)
	}
	out, err := r.run(ctx, "pg_rewind", "--target-pgdata="+r.Data, "--source-server="+r.Source, "--write-recovery-conf", "--no-sync")
	switch {
	case err == nil:
		r.Log.Info("rewound", "data", r.Data, "how", lastLine(out))
	case ctx.Err() != nil:
		return err
	default:
		r.Log.Warn("it cannot be rewound: a fresh copy takes its place", "data", r.Data, "error", err)
		if err := r.copy(ctx); err != nil {
			return err
		}
	}
	return r.useSlot(ctx, slot)
}

// Start starts the server, with options for its command line, and waits until it accepts
// connections. What it prints goes into a file in its folder.
func (r *Rejoin) Start(ctx context.Context, options string) error {
	file := filepath.Join(r.Data, "rejoin.log")
	_, err := r.run(ctx, "pg_ctl", "start", "-D", r.Data, "-w", "-l", file, "-o", options)
	if err != nil {
		log, _ := os.ReadFile(file) // it need not have come that far
		return fmt.Errorf("%w: %s", err, lastLine(string(log)))
	}
	return nil
}

// checkSource sees to it that the leader is one, and that its control file tells its
// timeline, which before 16 pg_rewind goes by and which is true only after the first
// checkpoint that follows a promotion.
func (r *Rejoin) checkSource(ctx context.Context) error {
	return r.ask(ctx, func(conn *pgx.Conn) error {
		var follower bool
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&follower); err != nil {
			return err
		}
		if follower {
			return errors.New("it is a follower itself")
		}
		if _, err := conn.Exec(ctx, "CHECKPOINT"); err == nil {
			return nil
		}
		// Without the right to, the one that a promotion begins is waited for.
		return until(ctx, conn, `SELECT timeline_id = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
 FROM pg_control_checkpoint()`)
	})
}

func (r *Rejoin) ask(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, r.Source)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return f(conn)
}

// stop stops the server: at once if it does not stop in time, because then it hangs.
func (r *Rejoin) stop(ctx context.Context) error {
	if _, err := r.run(ctx, "pg_ctl", "status", "-D", r.Data); err != nil {
		return ctx.Err() // it does not run
	}
	if _, err := r.run(ctx, "pg_ctl", "stop", "-D", r.Data, "-m", "fast", "-w", "-t", "30"); err == nil {
		return nil
	}
	_, err := r.run(ctx, "pg_ctl", "stop", "-D", r.Data, "-m", "immediate", "-w", "-t", "30")
	return err
}

// copy puts a base backup in the place of the folder.
func (r *Rejoin) copy(ctx context.Context) error {
	fresh := r.Data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if _, err := r.run(ctx, "pg_basebackup", "--pgdata="+fresh, "--dbname="+r.Source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"); err != nil {
		return err
	}
	old := r.Data + "." + time.Now().UTC().Format("20060102T150405")
	if err := os.Rename(r.Data, old); err != nil {
		return err
	}
	r.Log.Warn("the former folder is kept", "folder", old)
	return os.Rename(fresh, r.Data)
}

// useSlot has the server receive by a slot, which is made.
func (r *Rejoin) useSlot(ctx context.Context, slot string) error {
	if slot != "" {
		err := r.ask(ctx, func(conn *pgx.Conn) error { return makeSlot(ctx, conn, slot) })
		if err != nil {
			return fmt.Errorf("make slot %s: %w", slot, err)
		}
	}
	f, err := os.OpenFile(filepath.Join(r.Data, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// The last line of a setting counts.
	_, err = fmt.Fprintf(f, "primary_slot_name = '%s'\n", slot)
	return errors.Join(err, f.Close())
}

// run runs one of PostgreSQL's programs and returns what it printed. The program
// dies with us: a server that has gone silent would keep it for ever.
func (r *Rejoin) run(ctx context.Context, program string, args ...string) (string, error) {
	path := program
	if r.Bin != "" {
		path = filepath.Join(r.Bin, program)
	}
	command := r.Command
	if command == nil {
		command = exec.Command
	}
	cmd := command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	runtime.LockOSThread() // whose death it is
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", program, err, lastLine(out.String()))
	}
	return out.String(), err
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
