package lagwatch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// certificate makes one for 127.0.0.1 that signs itself, in PEM, with its key.
func certificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// The watcher logs in with a password over TLS where it must, and says why where
// it cannot. What the environment holds for other clients does not matter.
func TestLogin(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Settings: quietSettings})
	leader := c.Leader()
	conn := dialNode(t, leader)
	hush(t, leader)
	exec(t, conn, "CREATE ROLE watch LOGIN PASSWORD 'secret'; GRANT pg_monitor TO watch")
	// Defaults that would make a sample fail, or the nudge do nothing.
	exec(t, conn, "ALTER ROLE watch SET default_transaction_isolation = 'serializable'")
	exec(t, conn, "ALTER ROLE watch SET default_transaction_read_only = on")
	exec(t, conn, "ALTER ROLE watch SET synchronous_commit = off")
	cert, key := certificate(t)
	must(t, leader.WriteFile("server.crt", cert))
	must(t, leader.WriteFile("server.key", key))
	must(t, leader.Set(soon(t), "ssl", "on"))
	must(t, leader.WriteFile("pg_hba.conf", []byte("hostssl all watch 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n")))
	must(t, leader.Reload(soon(t)))

	t.Setenv("PGPASSWORD", "of somebody else")
	t.Setenv("PGOPTIONS", "-c no.such=setting -c search_path=nowhere")
	t.Setenv("PGSSLMODE", "verify-full")
	t.Setenv("PGSSLROOTCERT", "/nowhere")
	t.Setenv("PGSSLCERT", "/nowhere")
	t.Setenv("PGSSLNEGOTIATION", "direct")
	t.Setenv("PGTARGETSESSIONATTRS", "standby")
	t.Setenv("PGREQUIREAUTH", "md5")
	t.Setenv("PGCHANNELBINDING", "require")
	t.Setenv("PGMINPROTOCOLVERSION", "3.2")
	t.Setenv("PGMAXPROTOCOLVERSION", "3.2")
	t.Setenv("PGPORT", "none")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	o := fast
	o.User, o.Password, o.TLS, o.NudgeAfter = "watch", "secret", &tls.Config{RootCAs: roots}, time.Millisecond
	w := watch(t, o, leader)
	w.shows("leader 0: usable")
	if !get[bool](t, conn, "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'lsnproxy-watch'") {
		t.Error("a connection without TLS")
	}
	exec(t, conn, "BEGIN")
	exec(t, conn, "SELECT pg_logical_emit_message(true, '', 'unflushed')")
	need := Need{Leader: true, Node: -1, Position: w.token()}
	w.until("the nudge has the position flushed", need, func(v *topology.View) bool {
		return v.Nodes[0].Received >= need.Position.LSN
	})
	w.nudged(1)
	full := o.withDefaults()
	full.Database = "postgres"
	l, err := dial(soon(t), leader.Addr(), &full, flushing)
	must(t, err)
	defer l.close()
	row, err := l.query("SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation'), current_setting('transaction_read_only')")
	must(t, err)
	if got := strings.Join(row, ", "); got != "local, read committed, off" {
		t.Errorf("a nudge runs with %s", got)
	}

	for want, change := range map[string]func(*Options){
		"password authentication failed": func(o *Options) { o.Password = "guessed" },
		"signed by unknown authority":    func(o *Options) { o.TLS = &tls.Config{} },
		"no pg_hba.conf entry":           func(o *Options) { o.TLS = nil },
	} {
		bad := o
		change(&bad)
		v := watch(t, bad, leader).shows("no leader: down")
		if got := v.Nodes[0].Detail; !strings.Contains(got, want) || strings.Contains(got, "secret") {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}

// An address that is none is a node that is down, and says so.
func TestBadAddress(t *testing.T) {
	for _, address := range []string{"", "nowhere", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x"} {
		board := topology.NewBoard([]string{address})
		w := New(board, engine(t), Options{User: "postgres"})
		w.Start()
		down := make(chan struct{})
		wait := w.Await(Need{Node: -1}, func(v *topology.View) bool {
			return v.Nodes[0].State == topology.Down && v.Nodes[0].Detail != ""
		}, func() { close(down) })
		<-down
		wait.Cancel()
		w.Close()
	}
}
