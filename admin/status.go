package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// Status is what one proxy knows of the others and of the servers.
type Status struct {
	Version  string         `json:"version"`
	Cluster  *Cluster       `json:"cluster,omitempty"` // nil: one proxy alone, which takes part in no election
	Nodes    []NodeStatus   `json:"nodes"`
	Failover *FailoverState `json:"failover,omitempty"` // nil: nobody need say who leads
}

// FailoverState is how far a change of the leader has come, as the coordinator sees it.
type FailoverState struct {
	Coordinates bool   `json:"coordinates"` // this proxy does
	Phase       string `json:"phase"`
	Blocked     bool   `json:"blocked"` // a person is needed, or time
	Why         string `json:"why"`
}

// NodeStatus is one server of the database.
type NodeStatus struct {
	Address  string `json:"address"`
	Role     string `json:"role"`
	State    string `json:"state"`
	Leader   bool   `json:"leader"` // takes the writes
	Timeline uint32 `json:"timeline"`
	Position string `json:"position"` // applied, or written by a leader
	Lag      string `json:"lag"`      // "" for a leader, or if it is not known
}

// Cluster is the proxies.
type Cluster struct {
	Self        string     `json:"self"`
	Members     []Member   `json:"members"`
	Voters      []string   `json:"voters"`
	Coordinator string     `json:"coordinator"` // "": none known
	Term        uint64     `json:"term"`
	Quorum      bool       `json:"quorum"`
	Decree      Decree     `json:"decree"`
	Lease       Lease      `json:"lease"`
	Failovers   []Failover `json:"failovers"`
	Trouble     string     `json:"trouble,omitempty"`
}

// Member is one of them.
type Member struct {
	ID      string    `json:"id"`
	Address string    `json:"address"` // of its gossip
	Client  string    `json:"client"`
	HTTP    string    `json:"http"`
	Version string    `json:"version"`
	Health  string    `json:"health"`
	Since   time.Time `json:"since"`
	Votes   bool      `json:"votes"`
}

// Decree is who leads the database, as the proxies have agreed.
type Decree struct {
	Epoch    uint64          `json:"epoch"`
	SystemID uint64          `json:"system_id"`
	Leader   string          `json:"leader"` // "": nobody may write
	Timeline uint32          `json:"timeline"`
	Plan     json.RawMessage `json:"plan,omitempty"`
}

// Lease is this proxy's right to write.
type Lease struct {
	Epoch    uint64  `json:"epoch"`
	Seconds  float64 `json:"seconds"` // that are left of it; 0: there is none
	Retiring bool    `json:"retiring,omitempty"`
}

// Failover is one that is over.
type Failover struct {
	Epoch      uint64    `json:"epoch"`
	Old        string    `json:"old"`
	New        string    `json:"new"`
	Trigger    string    `json:"trigger"`
	Timeline   uint32    `json:"timeline"`
	Began      time.Time `json:"began"`
	PromotedAt time.Time `json:"promoted_at"`
	LostAtMost uint64    `json:"lost_at_most"`
	// The new timeline branched off from one at a position: what the former has beyond
	// it is lost.
	From   uint32 `json:"from"`
	Branch string `json:"branch"`
}

// Elsewhere is the error of what only the coordinator can do. HTTP is its
// address, "" if none is known.
type Elsewhere struct{ Coordinator, HTTP string }

func (e *Elsewhere) Error() string {
	if e.Coordinator == "" {
		return "no proxy coordinates the others at the moment"
	}
	return "only the coordinator can do this: " + e.Coordinator
}

// statusHandlers answers GET /status, and PUT and DELETE /voters/ID.
func (s *Source) statusHandlers(mux *http.ServeMux) {
	if s.Status != nil {
		mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			_ = e.Encode(s.Status()) // fails if the one who asked is gone
		})
	}
	if s.Vote != nil {
		vote := func(add bool) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
				defer cancel()
				Answer(w, r, s.Vote(ctx, r.PathValue("id"), add))
			}
		}
		mux.HandleFunc("PUT /voters/{id}", vote(true))
		mux.HandleFunc("DELETE /voters/{id}", vote(false))
	}
}

// switchoverHandler answers POST /switchover?to=HOST:PORT.
func (s *Source) switchoverHandler(mux *http.ServeMux) {
	if s.Switchover == nil {
		return
	}
	mux.HandleFunc("POST /switchover", func(w http.ResponseWriter, r *http.Request) {
		Answer(w, r, s.Switchover(r.Context(), r.URL.Query().Get("to")))
	})
}

// Answer tells how a command went: 204 if well; a redirection to the coordinator
// if it is that one's to do; else 409 and the reason.
func Answer(w http.ResponseWriter, r *http.Request, err error) {
	var elsewhere *Elsewhere
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.As(err, &elsewhere) && elsewhere.HTTP != "":
		to := url.URL{Scheme: "http", Host: elsewhere.HTTP, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusTemporaryRedirect)
	default:
		http.Error(w, err.Error(), http.StatusConflict)
	}
}
