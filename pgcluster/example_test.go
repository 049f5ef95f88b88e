package pgcluster_test

import (
	"context"
	"fmt"
	"log"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

func Example() {
	ctx := context.Background()
	c, err := pgcluster.Start(ctx, pgcluster.Options{Followers: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Stop()

	next := c.Followers()[0]
	if err := c.Leader().Kill(); err != nil {
		log.Print(err)
	}
	if err := next.Promote(ctx); err != nil {
		log.Print(err)
	}
	fmt.Println(c.Leader().Name(), "leads")
	// Output: node2 leads
}
