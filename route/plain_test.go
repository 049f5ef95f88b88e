package route_test

import (
	"testing"

	"github.com/lsnproxy/lsnproxy/route"
)

// TestPlain: which transactions may begin on a follower although they may write.
func TestPlain(t *testing.T) {
	for sql, want := range map[string]bool{
		"BEGIN": true, "begin work": true, "START TRANSACTION": true, "BEGIN ISOLATION LEVEL READ COMMITTED": true,
		"start transaction isolation level read uncommitted": true, "BEGIN NOT DEFERRABLE": true,
		"BEGIN READ WRITE": false, "BEGIN READ ONLY": false, "BEGIN ISOLATION LEVEL REPEATABLE READ": false,
		"BEGIN ISOLATION LEVEL SERIALIZABLE": false, "BEGIN READ ONLY, READ WRITE": false,
		"BEGIN; SELECT 1": false, "COMMIT": false, "SELECT 1": false,
	} {
		if c := route.Classify([]byte(sql), true, nil); c.Plain != want {
			t.Errorf("%s: %v", sql, c.Plain)
		}
	}
}
