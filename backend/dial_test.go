package backend_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// dial opens a connection that the test closes if it is never adopted.
func dial(t testing.TB, address string, login backend.Login) *backend.Conn {
	t.Helper()
	c, err := backend.Dial(soon(t), 3, address, login)
	must(t, err)
	t.Cleanup(func() {
		if c.Net == nil {
			c.Close()
		}
	})
	return c
}

func TestDial(t *testing.T) {
	l := newEngine(t, 1).Loops()[0]
	before := topology.Now()
	c := dial(t, server.Addr(), postgres("application_name", "first"))
	if c.Node != 3 || c.Opened <= before || c.Opened > topology.Now() || time.Since(c.Born) > time.Minute {
		t.Errorf("node %d, opened %d, born %s", c.Node, c.Opened, c.Born)
	}
	for name, want := range map[string]string{"application_name": "first", "server_encoding": "UTF8", "in_hot_standby": "off"} {
		if c.Params[name] != want {
			t.Errorf("the server reported %s = %q, want %q", name, c.Params[name], want)
		}
	}
	on(t, l, func(*reactor.Task) {
		if err := c.Adopt(l); err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if got := show(t, c, "SELECT 'hello'"); got != "hello" {
			t.Errorf("the server says %q", got)
		}
	})
}

// TestStartupParameters: they are the values that RESET returns to, which is why
// they are not applied with SET.
func TestStartupParameters(t *testing.T) {
	l := newEngine(t, 1).Loops()[0]
	c := dial(t, server.Addr(), postgres(
		"options", `-c application_name=a\ b -c search_path=a,b -c statement_timeout=4321`,
		"DateStyle", "German, DMY", "extra_float_digits", "2", "my.own", "value"))
	if got := c.Params["DateStyle"]; got != "German, DMY" {
		t.Errorf("the server reported DateStyle %q", got)
	}
	on(t, l, func(*reactor.Task) {
		if err := c.Adopt(l); err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for name, want := range map[string]string{
			"application_name": "a b", "search_path": "a,b", "statement_timeout": "4321ms", "DateStyle": "German, DMY", "extra_float_digits": "2", "my.own": "value",
		} {
			show(t, c, "SET "+name+" TO DEFAULT")
			if got := show(t, c, "SHOW "+name); got != want {
				t.Errorf("%s resets to %q, want %q", name, got, want)
			}
		}
	})
	refused(t, server.Addr(), postgres("no_such_parameter", "1"), "42704")
	refused(t, server.Addr(), postgres("work_mem", "much"), "22023")
}

// authenticate makes the server ask everybody but the superuser for a password
// by the given method, until the test ends.
func authenticate(t *testing.T, method string) {
	t.Helper()
	trust := []byte("host all all 127.0.0.1/32 trust\n")
	must(t, server.WriteFile("pg_hba.conf", append([]byte("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 "+method+"\n"), trust...)))
	t.Cleanup(func() {
		must(t, server.WriteFile("pg_hba.conf", trust))
		must(t, server.Reload(context.WithoutCancel(t.Context())))
	})
	must(t, server.Reload(soon(t)))
}

func TestPasswords(t *testing.T) {
	for method, encryption := range map[string]string{"password": "scram-sha-256", "scram-sha-256": "scram-sha-256", "md5": "md5"} {
		t.Run(method, func(t *testing.T) {
			authenticate(t, method)
			sql(t, "SET password_encryption = '"+encryption+"'; CREATE ROLE guest LOGIN PASSWORD 'open sesame'")
			defer sql(t, "DROP ROLE guest")
			login := backend.Login{User: "guest", Password: "open sesame", Database: "postgres"}
			rows, err := backend.Ask(soon(t), server.Addr(), login, "SELECT current_user")
			if err != nil || len(rows) != 1 || rows[0][0] != "guest" {
				t.Fatalf("%v, %v", rows, err)
			}
			dial(t, server.Addr(), login).Close()

			login.Password = "open barley"
			pg := refused(t, server.Addr(), login, "28P01")
			if backend.Unavailable(pg) {
				t.Error("a wrong password counts as an unavailable server")
			}
			told := backend.ErrorOf(pg)
			if told.Severity != "FATAL" || told.Code != "28P01" || told.Message != `password authentication failed for user "guest"` {
				t.Errorf("the client is told %+v", told)
			}
			login.Password = ""
			refused(t, server.Addr(), login, "28P01")
		})
	}
}

func TestRefused(t *testing.T) {
	pg := refused(t, server.Addr(), backend.Login{User: "postgres", Database: "nowhere"}, "3D000")
	if backend.Unavailable(pg) || backend.ErrorOf(pg).Message != `database "nowhere" does not exist` {
		t.Errorf("the client is told %+v", backend.ErrorOf(pg))
	}
	refused(t, server.Addr(), backend.Login{User: "nobody", Database: "postgres"}, "28000")

	sql(t, "CREATE ROLE single LOGIN CONNECTION LIMIT 1")
	defer sql(t, "DROP ROLE single")
	single := backend.Login{User: "single", Database: "postgres"}
	c := dial(t, server.Addr(), single)
	if pg := refused(t, server.Addr(), single, "53300"); !backend.Unavailable(pg) {
		t.Error("want of connections counts as a refusal of this login")
	}
	c.Close()
	eventually(t, "the server has noticed the end of a connection", func() bool {
		return sql(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'single'")[0][0] == "0"
	})
}

// TestAddresses: the forms an address may have.
func TestAddresses(t *testing.T) {
	_, port, _ := net.SplitHostPort(server.Addr())
	socket := filepath.Join(t.TempDir(), ".s.PGSQL.5432")
	addresses := map[string]string{
		"a name": "localhost:" + port, // most likely ::1 first, where no server listens
		"unix":   filepath.Dir(newRelay(t, "unix", socket).ln.Addr().String()) + ":5432",
	}
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Logf("SKIPPED the IPv6 address: this machine has none: %v", err)
	} else {
		ln.Close()
		addresses["IPv6"] = newRelay(t, "tcp", "[::1]:0").ln.Addr().String()
	}
	l := newEngine(t, 1).Loops()[0]
	for what, address := range addresses {
		c := dial(t, address, postgres())
		on(t, l, func(task *reactor.Task) {
			if err := c.Adopt(l); err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			defer c.Close()
			if got := cancelled(t, task, c); got != "57014" {
				t.Errorf("%s: a cancelled query ended with %s", what, got)
			}
		})
	}
}

// TestStartupPacketLimit: the longest startup packet wire takes is the longest
// PostgreSQL takes.
func TestStartupPacketLimit(t *testing.T) {
	for size, want := range map[int]bool{wire.MaxStartup: true, wire.MaxStartup + 1: false} {
		packet := []byte("\x00\x00\x00\x00\x00\x03\x00\x00user\x00postgres\x00my.own\x00")
		packet = append(packet, bytes.Repeat([]byte{'x'}, size-len(packet)-2)...)
		packet = append(packet, 0, 0)
		packet[2], packet[3] = byte(size>>8), byte(size)
		c, err := net.Dial("tcp", server.Addr())
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = c.Write(packet)
		must(t, err)
		msg, err := readMessage(c)
		if got := err == nil && msg[0] == wire.Authentication; got != want {
			t.Errorf("a startup packet of %d bytes: %q, %v", size, msg, err)
		}
		if _, ok, err := wire.StartupLen(packet); ok != want || (err == nil) != want {
			t.Errorf("StartupLen of %d: %v, %v", size, ok, err)
		}
		c.Close()
	}
}

// TestNoDescriptorLeft: whatever goes wrong, nothing stays open.
func TestNoDescriptorLeft(t *testing.T) {
	authenticate(t, "scram-sha-256")
	sql(t, "CREATE ROLE guest LOGIN PASSWORD 'open sesame'")
	defer sql(t, "DROP ROLE guest")
	silent := make(chan struct{})
	defer close(silent)
	quiet := stranger(t, func(net.Conn) {
		select {
		case <-silent:
		case <-time.After(50 * time.Millisecond):
		}
	})
	refusing := closedPort(t)
	attempts := map[string]func(){
		"let in": func() { dial(t, server.Addr(), postgres()).Close() },
		"wrong password": func() {
			refused(t, server.Addr(), backend.Login{User: "guest", Password: "x", Database: "postgres"}, "28P01")
		},
		"no database": func() { refused(t, server.Addr(), backend.Login{User: "postgres", Database: "x"}, "3D000") },
		"refused":     func() { unreachable(t, refusing) },
		"silent": func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := backend.Dial(ctx, 0, quiet, postgres()); err == nil {
				t.Error("a silent server let us in")
			}
		},
		"asked": func() { sql(t, "SELECT 1") },
		"asked wrongly": func() {
			if _, err := backend.Ask(soon(t), server.Addr(), postgres(), "SELECT 1/0"); err == nil {
				t.Error("1/0 is something")
			}
		},
	}
	for _, attempt := range attempts { // what is opened once and kept
		attempt()
	}
	before := descriptors(t)
	for range 10 {
		for _, attempt := range attempts {
			attempt()
		}
	}
	eventually(t, "as many descriptors as before: "+strconv.Itoa(before), func() bool { return descriptors(t) <= before })
}

// TestAdoptTooLate: a loop that is closing takes nothing over. The connection is
// closed, and just once: its number may be somebody else's by then.
func TestAdoptTooLate(t *testing.T) {
	engine := newEngine(t, 1)
	l := engine.Loops()[0]
	c := dial(t, server.Addr(), postgres())
	before := descriptors(t)
	l.Post(func() {
		l.Start(runner(func(task *reactor.Task) {
			task.Wait(time.Time{}) // until the engine closes
			if err := c.Adopt(l); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Adopt on a closing loop: %v", err)
			}
			if n := descriptors(t); n != before-1 {
				t.Errorf("%d descriptors, %d before", n, before)
			}
			var heirs []*os.File // one of them gets the number
			for range 8 {
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				heirs = append(heirs, f)
			}
			c.Close()
			for _, f := range heirs {
				if _, err := f.Stat(); err != nil {
					t.Errorf("another's descriptor was closed: %v", err)
				}
			}
		}))
	})
	engine.Close()
}
