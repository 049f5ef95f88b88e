package lagwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestSilence: whoever refuses, or closes, is there.
func TestSilence(t *testing.T) {
	dialing := func(e syscall.Errno) error { return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", e)} }
	for err, want := range map[error]bool{
		dialing(syscall.ECONNREFUSED): false, dialing(syscall.EHOSTUNREACH): true, dialing(syscall.ETIMEDOUT): true,
		io.ErrUnexpectedEOF: false, dialing(syscall.ECONNRESET): false, errors.New("another system"): false,
		fmt.Errorf("connect: %w", context.DeadlineExceeded): true, os.ErrDeadlineExceeded: true,
		&pgconn.PgError{Code: "53300"}: false,
	} {
		if got := isSilence(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
