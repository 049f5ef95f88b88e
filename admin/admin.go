// Package admin is the operator's doors: metrics, health and commands over HTTP, and what
// the SQL console answers.
//
// It sees the rest of the proxy only through a Source. What it shows is read
// when somebody asks; nothing here costs a query anything.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Source is what admin shows. Its functions are called by any goroutine, once
// per request that needs them.
type Source struct {
	// Snapshot gives the figures of the moment.
	Snapshot func() Snapshot
	// Ready says, for people, in what way the proxy can serve; the error why it
	// cannot.
	Ready func() (string, error)
	// Status gives what this proxy knows of the others and of the servers; nil: no
	// /status.
	Status func() Status
	// Vote gives a member a vote or takes it away; nil: nobody can.
	Vote func(ctx context.Context, id string, add bool) error
	// Clients, Servers and Config are for SHOW; nil: there is nothing to show.
	Clients func() []Client
	Servers func() []Server
	Config  func() []Setting
	// Switchover has another server lead, the one named or the best; nil: nobody can.
	Switchover func(ctx context.Context, to string) error
}

// NewRegistry makes a registry of the proxy's metrics, of those of the Go runtime
// and of those of the process.
func NewRegistry(source Source, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		&collector{snapshot: source.Snapshot, version: version},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// Handler answers on these paths: /metrics in Prometheus's formats; /healthz
// with 200 while the process lives; /readyz with 200 while the proxy can serve,
// else 503, and the reason in either case; /status with a Status in JSON; /show/NAME with
// what the console's SHOW NAME shows; PUT and DELETE /voters/ID.
func Handler(source Source, version string, log *slog.Logger) http.Handler {
	registry := NewRegistry(source, version)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError),
		// One bad figure must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      registry,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "alive\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		text, err := source.Ready()
		if err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ready: "+text+"\n")
	})
	source.statusHandlers(mux)
	source.switchoverHandler(mux)
	source.showHandler(mux)
	return mux
}

// Port serves a handler on one address.
type Port struct {
	listener net.Listener
	http     *http.Server
	done     chan struct{}
}

// Listen opens address and serves handler there until Close.
func Listen(address string, handler http.Handler, log *slog.Logger) (*Port, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open the HTTP port: %w", err)
	}
	s := &Port{
		listener: ln,
		http: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 5 * time.Second, // whoever connects and says nothing is let go
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		done: make(chan struct{}),
	}
	// Ended by Close, which waits for it.
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the HTTP port is closed", "error", err)
		}
	}()
	return s, nil
}

// Addr is the address it listens on.
func (s *Port) Addr() net.Addr { return s.listener.Addr() }

// Close stops listening, gives answers under way a second and cuts off the rest.
func (s *Port) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.done
}
