package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The feature called reads shows that followers serve a client. They do not serve
// tables that the proxy has not looked up yet, so the table it reads is made
// before, and reads come first in every program, before its own changes of tables.

// createReads makes the tables of all clients, through a proxy.
func createReads(ctx context.Context, w way, clients []client) error {
	c, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, client := range clients {
		for _, copied := range copies {
			table := client.prefix(copied) + "_reads"
			_, err := c.Exec(ctx, fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, n int); INSERT INTO %[1]s VALUES (1, 0)", table))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitFollower waits until a proxy gives reads of a table to followers.
func awaitFollower(ctx context.Context, w way, table string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	for {
		var n int
		var node string
		if err := c.QueryRow(ctx, "SELECT n FROM "+table).Scan(&n); err != nil {
			return fmt.Errorf("no follower serves %s: %w", table, err)
		}
		if err := c.QueryRow(ctx, "SHOW lsnproxy.node").Scan(&node); err != nil {
			return fmt.Errorf("no follower serves %s: %w", table, err)
		}
		if strings.Contains(node, " follower") {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w way) connect(ctx context.Context) (*pgx.Conn, error) {
	// All else as the demo says in the environment.
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s sslmode=disable", w.host, w.port))
}
