// Command go is a small web service that keeps notes, written in Go. What is
// posted can be read at once, here and in the service in Python beside it, though
// both read from followers: each answer to a write carries the token of that write,
// and whoever brings the token sees the write.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	header = "Lsnproxy-Token" // for services and scripts
	cookie = "lsnproxy_token" // for browsers, which bring it back by themselves
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8081", "serve on `HOST:PORT`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pool, err := pgxpool.New(ctx, "") // from PGHOST, PGPORT and so on
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	s := &http.Server{Addr: *listen, Handler: service(pool)}
	// Ends with ctx, and with it the program.
	go func() {
		<-ctx.Done()
		_ = s.Close()
	}()
	log.Printf("serving on http://%s/notes", *listen)
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func service(pool *pgxpool.Pool) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request, *pgxpool.Pool) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r, pool); err != nil {
				refuse(w, err)
			}
		})
	}
	handle("POST /notes", add)
	handle("GET /notes", list)
	return mux
}

// add writes a note and gives the client the token that covers it.
func add(w http.ResponseWriter, r *http.Request, pool *pgxpool.Pool) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1000))
	if err != nil {
		return err
	}
	conn, err := pool.Acquire(r.Context())
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(r.Context(), "INSERT INTO notes(text) VALUES ($1)", string(text)); err != nil {
		return err
	}
	// The proxy has sent it ahead of the answer: it costs nothing to look.
	if token := conn.Conn().PgConn().ParameterStatus("lsnproxy.token"); token != "" {
		w.Header().Set(header, token)
		http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// list reads the notes, and sees at least what the client's token stands for.
func list(w http.ResponseWriter, r *http.Request, pool *pgxpool.Pool) error {
	hint, err := hintOf(r)
	if err != nil {
		return err
	}
	// Exec mode: a text that is different each time is not worth preparing.
	rows, err := pool.Query(r.Context(), hint+"SELECT text FROM notes ORDER BY id", pgx.QueryExecModeExec)
	if err != nil {
		return err
	}
	notes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(notes)
}

// A token comes from outside and goes into a statement, so it has to look like one.
var token = regexp.MustCompile(`^[0-9]{1,20}:[0-9]{1,10}:[0-9A-F]{1,8}/[0-9A-F]{1,8}$`)

// errToken says that what the client brought is no token.
var errToken = errors.New("this is no token")

// hintOf makes the comment that tells the proxy of the client's token, from the
// header or else the cookie.
func hintOf(r *http.Request) (string, error) {
	value := r.Header.Get(header)
	if c, err := r.Cookie(cookie); value == "" && err == nil {
		value = c.Value
	}
	switch {
	case value == "":
		return "", nil
	case !token.MatchString(value):
		return "", errToken
	}
	return fmt.Sprintf("/* lsnproxy: token=%s */ ", value), nil
}

// refuse tells the client what is wrong. 22023: the token is of another database,
// or of a time to come. LS001, LS003: what it stands for was lost in a failover, or may
// have been.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var e *pgconn.PgError
	switch {
	case errors.Is(err, errToken), errors.As(err, &e) && e.Code == "22023":
		status = http.StatusBadRequest
	case errors.As(err, &e) && (e.Code == "LS001" || e.Code == "LS003"):
		status = http.StatusConflict
	}
	http.Error(w, err.Error(), status)
}
