package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestFleet: three proxies in front of a cluster; whichever serves, what was written
// through another before is there, also after the leader was killed.
func TestFleet(t *testing.T) {
	const script = `
set -e
psql -qc "CREATE TABLE t (k int)"
[ $(echo $LSNPROXY_PORTS | wc -w) = 3 ] && [ $PGPORT = ${LSNPROXY_PORTS%% *} ]
leader=$(psql -At "$LSNPROXY_LEADER" -c "SHOW data_directory")
for p in $LSNPROXY_PORTS; do psql -p $p -qc "INSERT INTO t VALUES ($p)"; done
kill -9 $(head -1 $leader/postmaster.pid)
for p in $LSNPROXY_PORTS; do psql -p $p -qc "INSERT INTO t VALUES ($p)"; done
psql -Atc "BEGIN" -c "SELECT 'rows', count(*), count(DISTINCT k) FROM t" -c "COMMIT"
lsnproxy status
`
	out, err := exec.CommandContext(t.Context(), "lsnproxy", "demo", "--proxies", "3", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--set", "failover.timeout=1s", "--", "bash", "-c", script).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "rows|6|3") || strings.Count(string(out), " alive ") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}
