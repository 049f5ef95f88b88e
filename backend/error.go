package backend

import (
	"errors"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/wire"
)

// Unavailable reports whether a failed Dial means that the server cannot be
// reached or does not take connections just now, as opposed to a refusal of
// this login.
func Unavailable(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	switch pg.Code {
	case "57P01", "57P02", "57P03", // going down, crashed, starting up or going down
		"53300": // no connection is left, for anybody or for this user or database
		return true
	}
	return false
}

// ErrorOf turns the error of a failed Dial into what the client is told: the
// server's own words where it had any.
func ErrorOf(err error) *wire.Error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return &wire.Error{Severity: "FATAL", Code: pg.Code, Message: pg.Message, Detail: pg.Detail, Hint: pg.Hint}
	}
	return &wire.Error{Severity: "FATAL", Code: "08001", Message: "could not connect to the server", Detail: rootCause(err)}
}

// rootCause is the innermost error's text. What is wrapped around it names the
// server's address, which a client need not see. Of the errors of several
// addresses it is that of the last.
func rootCause(err error) string {
	for {
		var dns *net.DNSError
		var inner error
		switch x := err.(type) {
		case *net.DNSError:
			dns = x
		case interface{ Unwrap() error }:
			inner = x.Unwrap()
		case interface{ Unwrap() []error }:
			if all := x.Unwrap(); len(all) > 0 {
				inner = all[len(all)-1]
			}
		}
		if dns != nil {
			return dns.Err
		}
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
