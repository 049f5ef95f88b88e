package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/admin"
)

// TestProxies: three proxies elect a coordinator, go on without it when it is
// killed, and do as `lsnproxy voter` says, whichever of them is asked.
func TestProxies(t *testing.T) {
	ids := []string{"p1", "p2", "p3"}
	var gossip []string
	for range ids {
		gossip = append(gossip, unused(t))
	}
	processes, web := map[string]*process{}, map[string]string{}
	for i, id := range ids {
		file := write(t, fmt.Sprintf(`
nodes: ["127.0.0.1:1"]
listen: 127.0.0.1:0
http: 127.0.0.1:0
shutdown_grace: 0
cluster: {id: %s, bind: %q, join: %s, data: %q, voters: [p1, p2, p3], heartbeat: 50ms, election: 500ms, lease: 2s}
`, id, gossip[i], marshalled(t, gossip), t.TempDir()))
		processes[id] = run(t, "serve", "--config", file)
		web[id] = processes[id].find(`msg=serving .* http=(\S+)`)[1]
	}
	// wait waits until all those named see it so, and gives what the last one sees.
	wait := func(what string, among []string, so func(*admin.Cluster) bool) (c *admin.Cluster) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			all := true
			for _, id := range among {
				c = statusOfProxy(t, web[id]).Cluster
				all = all && so(c)
			}
			if all {
				return c
			}
			if time.Now().After(end) {
				t.Fatalf("not so: %s: %+v", what, c)
			}
		}
	}
	first := wait("all have one coordinator", ids, func(c *admin.Cluster) bool {
		return c.Coordinator != "" && len(c.Members) == 3 && len(c.Voters) == 3 && c.Trouble == ""
	}).Coordinator
	var others []string
	for _, id := range ids {
		if id != first {
			others = append(others, id)
		}
	}
	text := tell(t, true, "status", "--http", web[others[0]])
	if !regexp.MustCompile(`coordinator: +`+first+`, term`).MatchString(text) || !strings.Contains(text, web[first]) {
		t.Errorf("status prints\n%s", text)
	}
	tell(t, true, "voter", "remove", others[1], "--http", web[others[1]]) // who passes it on to the coordinator
	wait("one has no vote", ids, func(c *admin.Cluster) bool { return len(c.Voters) == 2 })
	tell(t, true, "voter", "add", others[1], "--http", web[first])
	wait("it has one again", ids, func(c *admin.Cluster) bool { return len(c.Voters) == 3 })
	if text := tell(t, false, "voter", "add", "nobody", "--http", web[first]); !strings.Contains(text, "nobody is not here") {
		t.Errorf("voter add nobody: %s", text)
	}

	processes[first].signal(syscall.SIGKILL)
	wait("the others have another coordinator", others, func(c *admin.Cluster) bool {
		return c.Coordinator != "" && c.Coordinator != first
	})
	for _, id := range others {
		processes[id].signal(syscall.SIGTERM)
		processes[id].wantExit(0)
	}
}

func statusOfProxy(t *testing.T, web string) (s admin.Status) {
	t.Helper()
	_, body := get(t, web, "/status")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return s
}

// tell runs lsnproxy to its end and gives what it says.
func tell(t *testing.T, ok bool, args ...string) string {
	t.Helper()
	out, err := exec.Command("lsnproxy", args...).CombinedOutput()
	if (err == nil) != ok {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func marshalled(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// unused is an address on loopback whose port is free.
func unused(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
