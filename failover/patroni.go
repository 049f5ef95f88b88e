package failover

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/lsnproxy/lsnproxy/topology"
)

// consult asks the agent of Patroni beside a node, again and again, whether the node is
// the primary: GET /primary answers 200 if it is and holds the leader lock ("Patroni
// REST API" in its documentation). Its word only ever makes us more careful: a node that
// claims to lead and whose agent denies it is not believed; an agent that does not
// answer has said nothing.
func (p *probe) consult(ctx context.Context, url string) {
	client := &http.Client{Timeout: p.r.o.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	every := time.NewTicker(p.r.interval())
	defer every.Stop()
	for {
		denied := denies(ctx, client, url+"/primary")
		p.mu.Lock()
		switch {
		case denied == "":
			p.mu.denied = 0
		case p.mu.denied == 0:
			p.mu.denied = topology.Now()
		}
		p.mu.denial = denied
		p.mu.Unlock()
		p.tell()
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// denies is how an agent says that its node is not the primary; "" if it does not say so.
func denies(ctx context.Context, client *http.Client, url string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	response, err := client.Do(request)
	if err != nil {
		return ""
	}
	_ = response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return ""
	}
	return fmt.Sprintf("%s answers %s", url, response.Status)
}

// deposed reports whether the decreed leader's agent has denied it for so long that it
// is not a change under way. Whoever Patroni has taken the lock from is about to stop.
func (in *Input) deposed(leader *Node) bool {
	return leader.Denial != "" && in.Now.Since(leader.Denied) >= in.Timeout
}
