package backend_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
)

// strangerVariable tells this program, started again by TestEnvironment, to log
// in to the address it holds.
const strangerVariable = "BACKEND_TEST_ADDRESS"

// misleading is an environment that leads every PostgreSQL program astray.
func misleading(t *testing.T) map[string]string {
	home := t.TempDir()
	must(t, os.WriteFile(filepath.Join(home, ".pgpass"), []byte("*:*:*:*:open sesame\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(home, "service.conf"), []byte("[astray]\nhost=192.0.2.1\nuser=astray\nsslmode=verify-full\n"), 0o600))
	must(t, os.Mkdir(filepath.Join(home, ".postgresql"), 0o700))
	for _, name := range []string{"root.crt", "postgresql.crt", "postgresql.key"} {
		must(t, os.WriteFile(filepath.Join(home, ".postgresql", name), []byte("no certificate\n"), 0o600))
	}
	return map[string]string{
		"HOME":   home,
		"PGHOST": "192.0.2.1", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGDATABASE": "astray", "PGUSER": "astray",
		"PGPASSWORD": "open sesame", "PGPASSFILE": filepath.Join(home, ".pgpass"),
		"PGSERVICE": "astray", "PGSERVICEFILE": filepath.Join(home, "service.conf"),
		"PGOPTIONS": "-c work_mem=777kB", "PGAPPNAME": "astray", "PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German",
		"PGCLIENTENCODING": "LATIN1", "PGCONNECT_TIMEOUT": "soon",
		"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere", "PGSSLCERT": "/nowhere", "PGSSLKEY": "/nowhere",
		"PGSSLCERTMODE": "require", "PGSSLNEGOTIATION": "direct", "PGSSLSNI": "x", "PGSSLPASSWORD": "x",
		"PGTARGETSESSIONATTRS": "standby", "PGCHANNELBINDING": "require", "PGREQUIREAUTH": "none",
		"PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "none",
	}
}

// TestEnvironment: nothing in the environment of the proxy, or in its home
// folder, has a part in a login: neither set from the start nor set later.
func TestEnvironment(t *testing.T) {
	authenticate(t, "scram-sha-256")
	sql(t, "CREATE ROLE guest LOGIN PASSWORD 'open sesame'")
	defer sql(t, "DROP ROLE guest")
	env := misleading(t)

	exe, err := os.Executable()
	must(t, err)
	child := exec.CommandContext(soon(t), exe)
	child.Env = append(os.Environ(), strangerVariable+"="+server.Addr())
	for name, value := range env {
		child.Env = append(child.Env, name+"="+value)
	}
	if out, err := child.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "as expected" {
		t.Errorf("from the start: %v\n%s", err, out)
	}

	for name, value := range env {
		t.Setenv(name, value)
	}
	if err := unmoved(soon(t), server.Addr()); err != nil {
		t.Errorf("set later: %v", err)
	}
}

// strangerMain is the program that TestEnvironment starts.
func strangerMain(address string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := unmoved(ctx, address)
	if err == nil && os.Getenv("PGSERVICE") != "astray" {
		err = fmt.Errorf("PGSERVICE has become %q", os.Getenv("PGSERVICE"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("as expected")
}

// unmoved logs in and finds nothing but what the login says.
func unmoved(ctx context.Context, address string) error {
	login := backend.Login{User: "guest", Password: "open sesame", Database: "postgres"}
	rows, err := backend.Ask(ctx, address, login, `SELECT current_user, current_database(), current_setting('application_name'),
		current_setting('work_mem') <> '777kB', current_setting('TimeZone') <> 'Asia/Tokyo',
		current_setting('DateStyle') <> 'German', current_setting('client_encoding')`)
	if err != nil {
		return err
	}
	if got := strings.Join(rows[0], " "); got != "guest postgres  t t t UTF8" {
		return fmt.Errorf("the login became %q", got)
	}
	login.Password = ""
	if _, err := backend.Dial(ctx, 0, address, login); err == nil || backend.Unavailable(err) {
		return fmt.Errorf("without a password: %v", err)
	}
	return nil
}
