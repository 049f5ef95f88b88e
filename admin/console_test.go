package admin

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestViews: every row that is shown has a value for each column, with and without
// other proxies, and with nothing to show it from.
func TestViews(t *testing.T) {
	alone := Source{Snapshot: numbered}
	full := alone
	full.Status = func() Status {
		return Status{
			Version: "v1", Nodes: []NodeStatus{{Address: "10.0.0.1:5432", Position: "0/1"}}, Failover: &FailoverState{Phase: "steady"},
			Cluster: &Cluster{Self: "p1", Members: []Member{{ID: "p1"}}, Failovers: []Failover{{Epoch: 3}}},
		}
	}
	full.Clients = func() []Client { return []Client{{User: "app", Begun: time.Now()}, {Node: "10.0.0.1:5432"}} }
	full.Servers = func() []Server { return []Server{{Node: "10.0.0.1:5432"}} }
	full.Config = func() []Setting { return []Setting{{Key: "listen"}} }
	full.Switchover = func(context.Context, string) error { return nil }
	for name, s := range map[string]*Source{"alone": &alone, "full": &full} {
		help, err := s.Console(t.Context(), "SHOW HELP")
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range help[0].Rows {
			if command[0][0] != 'S' || command[0][1] != 'H' {
				continue // what it does is for others to try
			}
			tables, err := s.Console(t.Context(), command[0])
			if err != nil || len(tables) != 1 || name == "full" && len(tables[0].Rows) == 0 {
				t.Errorf("%s: %s: %v, %v", name, command[0], tables, err)
				continue
			}
			for _, row := range tables[0].Rows {
				if len(row) != len(tables[0].Columns) {
					t.Errorf("%s: %s: %d columns, %d values", name, command[0], len(tables[0].Columns), len(row))
				}
			}
		}
	}
}

// TestSwitchoverCommand: the node may be written in several ways.
func TestSwitchoverCommand(t *testing.T) {
	var asked []string
	failed := errors.New("not now")
	s := Source{Switchover: func(_ context.Context, to string) error {
		asked = append(asked, to)
		if to == "n3:1" {
			return failed
		}
		return nil
	}}
	for _, text := range []string{"SWITCHOVER", "switchover to n2:1", "Switchover To 'n2:1'", `SWITCHOVER TO "n2:1";`} {
		if tables, err := s.Console(t.Context(), text); err != nil || len(tables) != 1 || tables[0].Tag != "SWITCHOVER" {
			t.Errorf("%s: %v, %v", text, tables, err)
		}
	}
	if len(asked) != 4 || asked[0] != "" || asked[1] != "n2:1" || asked[2] != "n2:1" || asked[3] != "n2:1" {
		t.Errorf("%q", asked)
	}
	for text, code := range map[string]string{"SWITCHOVER TO": "42601", "SWITCHOVER n2:1": "42601", "SWITCHOVER TO n3:1": "55000", "SHOW": "42601", "SHOW x": "42704"} {
		var refused *Refusal
		if _, err := s.Console(t.Context(), text); !errors.As(err, &refused) || refused.SQLSTATE != code || refused.Hint == "" {
			t.Errorf("%s: %v", text, err)
		}
	}
}
