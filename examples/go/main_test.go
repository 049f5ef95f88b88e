package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
)

// TestNotes runs itself once more, behind a proxy in front of followers that apply
// everything a little late.
func TestNotes(t *testing.T) {
	if os.Getenv("LSNPROXY_LEADER") != "" {
		readYourWrites(t)
		return
	}
	proxy := filepath.Join(t.TempDir(), "lsnproxy")
	build := exec.Command("go", "build", "-o", proxy, "./cmd/lsnproxy")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command(proxy, "demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--apply-delay", "20ms",
		"--", os.Args[0], "-test.run=TestNotes", "-test.v")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// instance is the service with a pool of its own.
func instance(t *testing.T) (*httptest.Server, *pgxpool.Pool) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s := httptest.NewServer(service(pool))
	t.Cleanup(s.Close)
	return s, pool
}

// send makes a request, with a token in the header unless it is empty.
func send(t *testing.T, client *http.Client, method, url, token, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url+"/notes", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set(header, token)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

// readYourWrites writes to one instance and reads from the other, by turns, with
// the token in a cookie and in the header.
func readYourWrites(t *testing.T) {
	first, pool := instance(t)
	second, _ := instance(t)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, text text)"); err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil) // 127.0.0.1 is one site, whatever the port
	if err != nil {
		t.Fatal(err)
	}
	browser, script := &http.Client{Jar: jar}, &http.Client{}
	writer, reader := first.URL, second.URL
	for i := range 100 {
		note := strings.Repeat("x", i+1)
		client, token := script, ""
		if i%4 < 2 {
			client = browser
		}
		answer, text := send(t, client, "POST", writer, "", note)
		if answer.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %s", answer.Status, text)
		}
		if client == script {
			if token = answer.Header.Get(header); token == "" {
				t.Fatal("no token")
			}
		}
		answer, text = send(t, client, "GET", reader, token, "")
		if !strings.Contains(text, `"`+note+`"`) || answer.StatusCode != http.StatusOK {
			t.Fatalf("note %d: %s: %.300s", i, answer.Status, text)
		}
		writer, reader = reader, writer
	}
	for _, bad := range []string{"nonsense", "1*/; DROP TABLE notes; --", "1:1:0/1"} {
		if answer, text := send(t, script, "GET", reader, bad, ""); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("token %q: %s: %s", bad, answer.Status, text)
		}
	}
}
