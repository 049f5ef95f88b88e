// Command pgx is the compatibility program for github.com/jackc/pgx/v5.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/compat/report"
)

var (
	ctx   = context.Background()
	name  = report.Name
	equal = report.Equal[string]
)

func main() {
	report.Run([]report.Feature{
		{Name: "reads", Try: with(reads)},
		{Name: "connect", Try: connect},
		{Name: "types", Try: with(types)},
		{Name: "prepared", Try: with(prepared)},
		{Name: "transaction", Try: with(transaction)},
		{Name: "error", Try: with(failure)},
		{Name: "cursor", Try: with(cursor)},
		{Name: "copy", Try: with(copyRows)},
		{Name: "cancel", Try: with(cancel)},
		{Name: "notify", Try: with(notify)},
		{Name: "settings", Try: with(settings)},
		{Name: "largeobject", Try: with(largeObject)},
		{Name: "batch", Try: with(batch)},
	})
}

// with runs a feature on a connection of its own.
func with(try func(*pgx.Conn) (string, error)) func() (string, error) {
	return func() (string, error) {
		c, err := pgx.Connect(ctx, "")
		if err != nil {
			return "", err
		}
		defer c.Close(ctx)
		return try(c)
	}
}

// table makes an empty table.
func table(c *pgx.Conn, of, columns string) (string, error) {
	t := name(of)
	_, err := c.Exec(ctx, fmt.Sprintf("DROP TABLE IF EXISTS %s; CREATE TABLE %[1]s (%s)", t, columns))
	return t, err
}

// text asks for one value of type text.
func text(c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, args ...any,
) (s string, err error) {
	err = c.QueryRow(ctx, sql, args...).Scan(&s)
	return s, err
}

// want asks for one value of type text, which is to be the one given.
func want(c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, value, sql string, args ...any,
) error {
	s, err := text(c, sql, args...)
	return errors.Join(err, equal(sql, s, value))
}

// state gives the SQLSTATE of an error.
func state(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

// reads: each sees what was written just before. The table is there.
func reads(c *pgx.Conn) (string, error) {
	t := name("reads")
	for i := range 50 {
		_, err := c.Exec(ctx, "UPDATE "+t+" SET n = $1 WHERE id = 1", i)
		if err := errors.Join(err, want(c, fmt.Sprint(i), "SELECT n::text FROM "+t+" WHERE id = 1")); err != nil {
			return "", err
		}
	}
	return "", nil
}

func connect() (string, error) {
	c, err := pgx.Connect(ctx, "")
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	who, err := text(c, "SELECT current_user || ' ' || current_database()")
	if err != nil {
		return "", err
	}
	_, err = pgx.Connect(ctx, "dbname=there_is_none")
	return who + " " + c.PgConn().ParameterStatus("server_version") + " " + state(err), nil
}

func types(c *pgx.Conn) (string, error) {
	t, err := table(c, "types", `b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea,
		d date, z timestamptz, j jsonb, a int4[], ta text[], nothing text`)
	if err != nil {
		return "", err
	}
	z := time.Date(2024, 2, 29, 13, 14, 15, 678901000, time.UTC)
	in := []any{
		true, int16(-32768), int32(2147483647), int64(-9223372036854775808), 0.1, "12345678901234567890.123456789",
		"żółć \"' \\ 日本",
		[]byte{0, 1, 255},
		z.Truncate(24 * time.Hour), z,
		map[string]any{"a": []any{1.0, nil}},
		[]int32{1, -2},
		[]string{"a", "b,c"},
		nil,
	}
	if _, err = c.Exec(ctx, "INSERT INTO "+t+" VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)", in...); err != nil {
		return "", err
	}
	var (
		b        bool
		s        int16
		i        int32
		l        int64
		f        float64
		n, u     string
		y        []byte
		d, moved time.Time
		j        map[string]any
		a        []int32
		ta       []string
		nothing  *string
	)
	err = c.QueryRow(ctx, "SELECT b, s, i, l, f, n::text, t, y, d, z, j, a, ta, nothing FROM "+t).
		Scan(&b, &s, &i, &l, &f, &n, &u, &y, &d, &moved, &j, &a, &ta, &nothing)
	out := []any{b, s, i, l, f, n, u, y, d, moved.UTC(), j, a, ta, nil}
	if nothing != nil {
		err = errors.New("NULL became " + *nothing)
	}
	return fmt.Sprint(len(in)), errors.Join(err, equal("row", fmt.Sprint(out...), fmt.Sprint(in...)))
}

func prepared(c *pgx.Conn) (string, error) {
	t, err := table(c, "prepared", "id int, v text")
	if err != nil {
		return "", err
	}
	if _, err = c.Prepare(ctx, "put", "INSERT INTO "+t+" VALUES ($1, $2)"); err != nil {
		return "", err
	}
	if _, err = c.Prepare(ctx, "get", "SELECT v FROM "+t+" WHERE id = $1"); err != nil {
		return "", err
	}
	for i := range 20 {
		v := fmt.Sprint(name("v"), i)
		if _, err = c.Exec(ctx, "put", i, v); err != nil {
			return "", err
		}
		if err := want(c, v, "get", i); err != nil {
			return "", err
		}
	}
	if _, err = c.Prepare(ctx, "all", "SELECT * FROM "+t+" WHERE id = 3"); err != nil {
		return "", err
	}
	_, before := c.Exec(ctx, "all")
	_, changed := c.Exec(ctx, "ALTER TABLE "+t+" ADD more int")
	_, after := c.Exec(ctx, "all")
	gone := c.Deallocate(ctx, "get")
	_, again := c.Prepare(ctx, "get", "SELECT 'other'")
	return "changed result " + state(after), errors.Join(before, changed, gone, again, want(c, "other", "get"))
}

func transaction(c *pgx.Conn) (string, error) {
	t, err := table(c, "transaction", "id int primary key")
	if err != nil {
		return "", err
	}
	count := "SELECT count(*)::text FROM " + t
	tx, err := c.Begin(ctx)
	if err != nil {
		return "", err
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+t+" VALUES (1)")
	if err := errors.Join(err, want(tx, "1", count), tx.Rollback(ctx), want(c, "0", count)); err != nil {
		return "", err
	}
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO "+t+" VALUES (1)")
		inner := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
			_, err := tx.Exec(ctx, "INSERT INTO "+t+" VALUES (1)")
			return err
		})
		return errors.Join(err, equal("savepoint", state(inner), "23505"), want(tx, "1", count))
	})
	if err := errors.Join(err, want(c, "1", count)); err != nil {
		return "", err
	}
	readOnly := pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := errors.Join(want(tx, "1", count), want(tx, "serializable", "SHOW transaction_isolation")); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO "+t+" VALUES (2)")
		return err
	})
	return "read only " + state(readOnly), want(c, "1", count)
}

func failure(c *pgx.Conn) (seen string, err error) {
	t, err := table(c, "error", "id int primary key")
	if err != nil {
		return "", err
	}
	for _, sql := range []string{
		"SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
		"INSERT INTO " + t + " VALUES (1), (1)",
	} {
		_, err := c.Exec(ctx, sql)
		seen += state(err) + " "
		if err := want(c, "fine", "SELECT 'fine'"); err != nil {
			return "", err
		}
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return "", err
	}
	_, first := tx.Exec(ctx, "SELECT 1/0")
	_, second := tx.Exec(ctx, "SELECT 1")
	return seen + state(first) + " " + state(second), errors.Join(tx.Rollback(ctx), want(c, "fine", "SELECT 'fine'"))
}

// cursor: one of SQL's. pgx has none of its own.
func cursor(c *pgx.Conn) (string, error) {
	rows := 0
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DECLARE c CURSOR FOR SELECT generate_series(1, 1000)"); err != nil {
			return err
		}
		for {
			tag, err := tx.Exec(ctx, "FETCH 90 FROM c")
			rows += int(tag.RowsAffected())
			if err != nil || tag.RowsAffected() < 90 {
				return err
			}
		}
	})
	return fmt.Sprint(rows), err
}

func copyRows(c *pgx.Conn) (string, error) {
	t, err := table(c, "copy", "id int, v text")
	if err != nil {
		return "", err
	}
	in, err := c.CopyFrom(ctx, pgx.Identifier{t}, []string{"id", "v"}, pgx.CopyFromSlice(1000, func(i int) ([]any, error) {
		return []any{i, fmt.Sprint("row ", i)}, nil
	}))
	if err != nil {
		return "", err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	out, err := c.PgConn().CopyTo(ctx, null, "COPY "+t+" TO STDOUT")
	if err != nil {
		return "", err
	}
	broken := errors.New("the client gives up")
	_, aborted := c.CopyFrom(ctx, pgx.Identifier{t}, []string{"id"}, pgx.CopyFromFunc(func() ([]any, error) { return nil, broken }))
	_, missing := c.CopyFrom(ctx, pgx.Identifier{"there_is_none"}, []string{"id"}, pgx.CopyFromRows(nil))
	return fmt.Sprintln(in, out, state(aborted), state(missing)), want(c, "1000", "SELECT count(*)::text FROM "+t)
}

func cancel(c *pgx.Conn) (string, error) {
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	go func() { <-short.Done(); _ = c.PgConn().CancelRequest(ctx) }() // ends with short
	_, err := c.Exec(ctx, "SELECT pg_sleep(30)")
	_, slow := c.Exec(ctx, "BEGIN; SET LOCAL statement_timeout = 50; SELECT pg_sleep(30)")
	_, rolled := c.Exec(ctx, "ROLLBACK")
	return state(err) + " " + state(slow), errors.Join(rolled, want(c, "fine", "SELECT 'fine'"))
}

func notify(c *pgx.Conn) (string, error) {
	other, err := pgx.Connect(ctx, "")
	if err != nil {
		return "", err
	}
	defer other.Close(ctx)
	channel := name("channel")
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		return "", err
	}
	if _, err := other.Exec(ctx, "SELECT pg_notify($1, 'hello')", channel); err != nil {
		return "", err
	}
	soon, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	n, err := c.WaitForNotification(soon)
	if err != nil {
		return "", err
	}
	_, err = c.Exec(ctx, "UNLISTEN *")
	return n.Payload, errors.Join(err, equal("channel", n.Channel, channel))
}

func settings(c *pgx.Conn) (string, error) {
	t, err := table(c, "settings", "v text")
	if err != nil {
		return "", err
	}
	mine := name("application")
	if _, err := c.Exec(ctx, "SET application_name = "+mine+"; SET TimeZone = 'Asia/Tokyo'"); err != nil {
		return "", err
	}
	for range 20 {
		_, err := c.Exec(ctx, "INSERT INTO "+t+" VALUES (current_setting('application_name'))")
		if err := errors.Join(err, want(c, mine, "SHOW application_name"), want(c, "Asia/Tokyo", "SELECT current_setting('TimeZone')")); err != nil {
			return "", err
		}
	}
	if err := equal("as told to the client", c.PgConn().ParameterStatus("TimeZone"), "Asia/Tokyo"); err != nil {
		return "", err
	}
	_, local := c.Exec(ctx, "BEGIN; SET LOCAL TimeZone = 'UTC'; COMMIT")
	after := want(c, "Asia/Tokyo", "SHOW TimeZone")
	_, undone := c.Exec(ctx, "BEGIN; SET TimeZone = 'UTC'; ROLLBACK")
	return "", errors.Join(local, after, undone, want(c, "Asia/Tokyo", "SHOW TimeZone"),
		want(c, "20", "SELECT count(*)::text FROM "+t+" WHERE v = $1", mine))
}

func largeObject(c *pgx.Conn) (string, error) {
	seen := ""
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		los := tx.LargeObjects()
		oid, err := los.Create(ctx, 0)
		if err != nil {
			return err
		}
		o, err := los.Open(ctx, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
		if err != nil {
			return err
		}
		_, wrote := o.Write([]byte("large object"))
		_, sought := o.Seek(6, 0)
		b := make([]byte, 6)
		_, read := o.Read(b)
		seen = string(b)
		return errors.Join(wrote, sought, read, o.Close(), los.Unlink(ctx, oid))
	})
	return seen, err
}

func batch(c *pgx.Conn) (string, error) {
	t, err := table(c, "batch", "id int primary key")
	if err != nil {
		return "", err
	}
	b := new(pgx.Batch)
	for i := range 50 {
		b.Queue("INSERT INTO "+t+" VALUES ($1)", i)
	}
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return "", err
	}
	b = new(pgx.Batch)
	b.Queue("INSERT INTO " + t + " VALUES (100)")
	b.Queue("INSERT INTO " + t + " VALUES (1)")
	b.Queue("INSERT INTO " + t + " VALUES (101)")
	err = c.SendBatch(ctx, b).Close()
	return "error in the middle " + state(err), want(c, "50", "SELECT count(*)::text FROM "+t)
}
