// Command libpq is the compatibility program for github.com/lib/pq, which is used
// through database/sql.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"

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
		{Name: "batch", Try: with(batch)},
	})
}

// with runs a feature on a connection of its own.
func with(try func(*sql.Conn) (string, error)) func() (string, error) {
	return func() (string, error) {
		db, err := sql.Open("postgres", "")
		if err != nil {
			return "", err
		}
		defer db.Close()
		c, err := db.Conn(ctx)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return try(c)
	}
}

type querier interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}

// table makes an empty table.
func table(c *sql.Conn, of, columns string) (string, error) {
	t := name(of)
	_, err := c.ExecContext(ctx, fmt.Sprintf("DROP TABLE IF EXISTS %s; CREATE TABLE %[1]s (%s)", t, columns))
	return t, err
}

// run runs statements until one fails.
func run(c querier, statements ...string) error {
	for _, s := range statements {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// want asks for one value, which is to be the one given.
func want(c querier, value, query string, args ...any) error {
	var s string
	err := c.QueryRowContext(ctx, query, args...).Scan(&s)
	return errors.Join(err, equal(query, s, value))
}

// state gives the SQLSTATE of an error.
func state(err error) string {
	if e, ok := errors.AsType[*pq.Error](err); ok {
		return string(e.Code)
	}
	return fmt.Sprint(err)
}

// reads: each sees what was written just before. The table is there.
func reads(c *sql.Conn) (string, error) {
	t := name("reads")
	for i := range 50 {
		_, err := c.ExecContext(ctx, "UPDATE "+t+" SET n = $1 WHERE id = 1", i)
		if err := errors.Join(err, want(c, fmt.Sprint(i), "SELECT n FROM "+t+" WHERE id = $1", 1)); err != nil {
			return "", err
		}
	}
	return "", nil
}

func connect() (string, error) {
	none, err := sql.Open("postgres", "dbname=there_is_none")
	if err != nil {
		return "", err
	}
	defer none.Close()
	seen, err := with(func(c *sql.Conn) (who string, err error) {
		err = c.QueryRowContext(ctx, "SELECT current_user || ' ' || current_database()").Scan(&who)
		return who, err
	})()
	return seen + " " + state(none.Ping()), err
}

func types(c *sql.Conn) (string, error) {
	t, err := table(c, "types", `b bool, l int8, f float8, n numeric, t text, y bytea, z timestamptz, a int8[], ta text[], nothing text`)
	if err != nil {
		return "", err
	}
	z := time.Date(2024, 2, 29, 13, 14, 15, 678901000, time.UTC)
	in := []any{
		true, int64(-9223372036854775808), 0.1, "12345678901234567890.123456789", "żółć \"' \\ 日本",
		[]byte{0, 1, 255},
		z,
		pq.Int64Array{1, -2},
		pq.StringArray{"a", "b,c"},
		nil,
	}
	if _, err = c.ExecContext(ctx, "INSERT INTO "+t+" VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)", in...); err != nil {
		return "", err
	}
	var (
		b       bool
		l       int64
		f       float64
		n, u    string
		y       []byte
		moved   time.Time
		a       pq.Int64Array
		ta      pq.StringArray
		nothing sql.NullString
	)
	err = c.QueryRowContext(ctx, "SELECT * FROM "+t).Scan(&b, &l, &f, &n, &u, &y, &moved, &a, &ta, &nothing)
	out := []any{b, l, f, n, u, y, moved.UTC(), a, ta, nil}
	if nothing.Valid {
		err = errors.New("NULL became " + nothing.String)
	}
	return fmt.Sprint(len(in)), errors.Join(err, equal("row", fmt.Sprint(out...), fmt.Sprint(in...)))
}

func prepared(c *sql.Conn) (string, error) {
	t, err := table(c, "prepared", "id int, v text")
	if err != nil {
		return "", err
	}
	put, err := c.PrepareContext(ctx, "INSERT INTO "+t+" VALUES ($1, $2)")
	if err != nil {
		return "", err
	}
	get, err := c.PrepareContext(ctx, "SELECT v FROM "+t+" WHERE id = $1")
	if err != nil {
		return "", err
	}
	for i := range 20 {
		v, seen := fmt.Sprint(name("v"), i), ""
		_, err := put.Exec(i, v)
		if err := errors.Join(err, get.QueryRow(i).Scan(&seen), equal("row", seen, v)); err != nil {
			return "", err
		}
	}
	all, err := c.PrepareContext(ctx, "SELECT * FROM "+t+" WHERE id = 3")
	if err != nil {
		return "", err
	}
	_, before := all.Exec()
	changed := run(c, "ALTER TABLE "+t+" ADD more int")
	_, after := all.Exec()
	return "changed result " + state(after), errors.Join(before, changed, put.Close(), get.Close(), all.Close(),
		want(c, "20", "SELECT count(*) FROM "+t))
}

func transaction(c *sql.Conn) (string, error) {
	t, err := table(c, "transaction", "id int primary key")
	if err != nil {
		return "", err
	}
	count := "SELECT count(*) FROM " + t
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	if err := errors.Join(run(tx, "INSERT INTO "+t+" VALUES (1)"), want(tx, "1", count), tx.Rollback(), want(c, "0", count)); err != nil {
		return "", err
	}
	if tx, err = c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead}); err != nil {
		return "", err
	}
	err = run(tx, "INSERT INTO "+t+" VALUES (1)", "SAVEPOINT s")
	inner := run(tx, "INSERT INTO "+t+" VALUES (1)")
	if err := errors.Join(err, run(tx, "ROLLBACK TO s"), want(tx, "repeatable read", "SHOW transaction_isolation"),
		tx.Commit(), want(c, "1", count)); err != nil {
		return "", err
	}
	if tx, err = c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true}); err != nil {
		return "", err
	}
	err = want(tx, "1", count)
	refused := run(tx, "INSERT INTO "+t+" VALUES (2)")
	return fmt.Sprint("savepoint ", state(inner), ", read only ", state(refused)), errors.Join(err, tx.Rollback(), want(c, "1", count))
}

func failure(c *sql.Conn) (seen string, err error) {
	t, err := table(c, "error", "id int primary key")
	if err != nil {
		return "", err
	}
	for _, query := range []string{
		"SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
		"INSERT INTO " + t + " VALUES (1), (1)",
	} {
		seen += state(run(c, query)) + " "
		if err := want(c, "2", "SELECT 1 + $1::int", 1); err != nil {
			return "", err
		}
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	first, second := run(tx, "SELECT 1/0"), run(tx, "SELECT 1")
	return seen + state(first) + " " + state(second), errors.Join(tx.Rollback(), want(c, "fine", "SELECT 'fine'"))
}

// cursor: one of SQL's. pq has none of its own.
func cursor(c *sql.Conn) (string, error) {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer tx.Rollback()
	if err := run(tx, "DECLARE c CURSOR FOR SELECT generate_series(1, 1000)"); err != nil {
		return "", err
	}
	for rows := int64(0); ; {
		r, err := tx.Exec("FETCH 90 FROM c")
		if err != nil {
			return "", err
		}
		n, err := r.RowsAffected()
		rows += n
		if err != nil || n < 90 {
			return fmt.Sprint(rows), err
		}
	}
}

// copyRows: in only. pq refuses COPY TO.
func copyRows(c *sql.Conn) (string, error) {
	t, err := table(c, "copy", "id int, v text")
	if err != nil {
		return "", err
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	in, err := tx.Prepare("COPY " + t + " (id, v) FROM STDIN")
	if err != nil {
		return "", err
	}
	for i := range 1000 {
		if _, err := in.Exec(i, fmt.Sprint("row ", i)); err != nil {
			return "", err
		}
	}
	_, err = in.Exec()
	if err := errors.Join(err, in.Close(), tx.Commit(), want(c, "1000", "SELECT count(*) FROM "+t)); err != nil {
		return "", err
	}
	if tx, err = c.BeginTx(ctx, nil); err != nil {
		return "", err
	}
	if in, err = tx.Prepare("COPY " + t + " (id) FROM STDIN"); err != nil {
		return "", err
	}
	_, sent := in.Exec("not a number")
	_, failed := in.Exec()
	_ = in.Close() // says the same once more
	return "failing " + state(failed), errors.Join(sent, tx.Rollback(), want(c, "1000", "SELECT count(*) FROM "+t))
}

// cancel: pq gives up a connection on which it has cancelled a statement.
func cancel(c *sql.Conn) (string, error) {
	slow := run(c, "BEGIN", "SET LOCAL statement_timeout = 50", "SELECT pg_sleep(30)")
	if err := errors.Join(run(c, "ROLLBACK"), want(c, "fine", "SELECT 'fine'")); err != nil {
		return "", err
	}
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	_, err := c.ExecContext(short, "SELECT pg_sleep(30)")
	return state(slow) + " " + state(err), nil
}

func notify(c *sql.Conn) (string, error) {
	l := pq.NewListener("", time.Second, time.Second, nil)
	defer l.Close()
	channel := name("channel")
	if err := errors.Join(l.Listen(channel), run(c, "NOTIFY "+channel+", 'hello'")); err != nil {
		return "", err
	}
	select {
	case n := <-l.Notify:
		return n.Extra, errors.Join(equal("channel", n.Channel, channel), l.Ping(), l.Unlisten(channel))
	case <-time.After(10 * time.Second):
		return "", errors.New("nothing came")
	}
}

func settings(c *sql.Conn) (string, error) {
	t, err := table(c, "settings", "v text")
	if err != nil {
		return "", err
	}
	mine := name("application")
	if err := run(c, "SET application_name = "+mine+"; SET TimeZone = 'Asia/Tokyo'"); err != nil {
		return "", err
	}
	for range 20 {
		if err := errors.Join(run(c, "INSERT INTO "+t+" VALUES (current_setting('application_name'))"),
			want(c, mine, "SHOW application_name"), want(c, "Asia/Tokyo", "SELECT current_setting($1)", "TimeZone")); err != nil {
			return "", err
		}
	}
	var moved time.Time // pq shows times in the zone that the server has told
	err = c.QueryRowContext(ctx, "SELECT '2024-02-29 12:00Z'::timestamptz").Scan(&moved)
	return moved.Format(time.RFC3339), errors.Join(err,
		run(c, "BEGIN", "SET LOCAL TimeZone = 'UTC'", "COMMIT"), want(c, "Asia/Tokyo", "SHOW TimeZone"),
		run(c, "BEGIN", "SET TimeZone = 'UTC'", "ROLLBACK"), want(c, "Asia/Tokyo", "SHOW TimeZone"),
		want(c, "20", "SELECT count(*) FROM "+t+" WHERE v = $1", mine))
}

// batch: several statements in one simple query.
func batch(c *sql.Conn) (string, error) {
	t, err := table(c, "batch", "id int primary key")
	if err != nil {
		return "", err
	}
	failed := run(c, fmt.Sprintf("INSERT INTO %s VALUES (1); INSERT INTO %[1]s VALUES (1); INSERT INTO %[1]s VALUES (2)", t))
	rows, err := c.QueryContext(ctx, "SELECT 1; SELECT 2, 3; SELECT 4 WHERE false")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	sets := 1
	for rows.NextResultSet() {
		sets++
	}
	return fmt.Sprintf("%d results, error in the middle %s", sets, state(failed)),
		errors.Join(rows.Err(), rows.Close(), want(c, "0", "SELECT count(*) FROM "+t))
}
