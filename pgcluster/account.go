package pgcluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user the servers run as.
type account struct {
	name       string
	credential *syscall.Credential // nil: the caller itself
}

// serverAccount is the caller, unless that is root, as which PostgreSQL refuses
// to run: then it is the system user postgres, or nobody.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	var last error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			last = err
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{name: name, credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no user to run it as: %w", last)
}

// own gives path to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// reach reports which folder on the way to dir, dir included, the account may
// not pass. dir is absolute.
func (a account) reach(dir string) error {
	if a.credential == nil {
		return nil
	}
	for {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		owner := st.Sys().(*syscall.Stat_t)
		pass := os.FileMode(0o001)
		switch {
		case owner.Uid == a.credential.Uid:
			pass = 0o100
		case owner.Gid == a.credential.Gid:
			pass = 0o010
		}
		if st.Mode().Perm()&pass == 0 {
			return fmt.Errorf("folder %s is closed to the user %s, as which the servers run because root may not run them: open it (chmod o+x) or choose another folder", dir, a.name)
		}
		if dir == "/" {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// command prepares a program to run as the account in folder dir, in a session
// of its own so that an interrupt from the terminal does not reach it, and
// without the caller's environment, whose PG variables would change what it does.
func (a account) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + filepath.Dir(program) + ":/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: a.credential}
	return cmd
}

// run runs a prepared program to its end, or to the end of ctx, and puts what it
// printed into the error.
func run(ctx context.Context, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, strings.TrimSpace(out.String()))
	}
	return nil
}
