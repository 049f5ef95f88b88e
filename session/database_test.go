package session_test

import (
	"testing"
)

// TestDropDatabase: the proxy's idle connections are in nobody's way, and what it
// knew of a database is not taken for true of the next one of that name.
func TestDropDatabase(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	admin := p.connect(t, "")
	for _, relation := range []string{"table thing (i int)", "view thing as select nextval('counter') as i"} {
		must(t, admin, "create database dropped")
		inside := p.connect(t, "dbname=dropped")
		must(t, inside, "create sequence counter", "create "+relation)
		for range 20 { // for connections to the followers too
			must(t, inside, "select count(*) from thing")
		}
		if err := inside.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		must(t, admin, "create database copied template dropped", "drop database copied",
			"alter database dropped rename to renamed", `drop database "renamed"`)
	}
}
