package failover

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// In mode observe whoever was promoted by somebody else is followed, once nobody may
// write to the other; two claimants are not.
func TestObserve(t *testing.T) {
	o := quick()
	o.Mode = Observe
	w := watch(t, o, two)
	must(t, w.nodes[1].Promote(soon(t)))
	w.decrees(1, 2)
	must(t, w.nodes[0].Kill())
	must(t, w.nodes[2].Promote(soon(t)))
	w.blocks("both claim to lead timeline 2")
	if d := w.decider.Node.State().Decree; d.Leader != "" {
		t.Errorf("two claimants, and the decree is %+v", d)
	}
	must(t, w.nodes[2].Stop(pgcluster.Fast))
	w.blocks("both claim to lead timeline 2")
	if err := w.Switchover(soon(t), ""); err == nil || !strings.Contains(err.Error(), "observe") {
		t.Errorf("switchover while observing: %v", err)
	}
}

// What Patroni's agents say can only keep a node from leading.
func TestObservePatroni(t *testing.T) {
	answers := make([]atomic.Int32, 3) // the status; 0: none
	o := quick()
	o.Mode, o.Patroni = Observe, make(map[string]string)
	agent := func(i int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status := int(answers[i].Load())
			if status == 0 || r.URL.Path != "/primary" {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	w := &watched{t: t, cluster: pgtest.Start(t, two)}
	w.nodes, w.options = w.cluster.Nodes(), o
	for i, n := range w.nodes {
		o.Patroni[n.Addr()] = agent(i)
		answers[i].Store(http.StatusServiceUnavailable)
	}
	w.run()
	w.blocks("claims to lead, and Patroni denies it")
	answers[0].Store(http.StatusOK)
	w.decrees(0, 1)
	answers[0].Store(0) // an agent that is gone says nothing
	must(t, w.nodes[1].Promote(soon(t)))
	w.blocks(w.nodes[1].Addr() + " claims to lead, and Patroni denies it")
	answers[1].Store(http.StatusOK)
	w.decrees(1, 2)
	answers[1].Store(http.StatusServiceUnavailable)
	w.blocks("denies")
	if d := w.decider.Node.State().Decree; d.Leader != "" {
		t.Errorf("Patroni denies that anybody leads, and the decree is %+v", d)
	}
	answers[1].Store(0)
	w.decrees(1, 2)
}
