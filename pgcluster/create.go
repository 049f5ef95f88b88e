package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// settingsFile is included at the end of postgresql.conf. It is the same on
// every node, so that pg_rewind may copy it.
const settingsFile = "lsnproxy.conf"

// create makes a new cluster: one initdb, cold copies of it for the followers,
// the leader, its followers. A follower that starts from a copy of the leader's
// first state streams all the rest, which is quicker than a base backup.
func (c *Cluster) create(ctx context.Context, o Options) error {
	if err := c.watch(); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := os.Mkdir(n.folder, 0o700); err != nil {
			return err
		}
		if err := c.account.own(n.folder); err != nil {
			return err
		}
	}
	leader, followers := c.nodes[0], c.nodes[1:]
	if err := leader.initialize(ctx, o); err != nil {
		return err
	}
	err := each(followers, func(_ int, n *Node) error {
		return run(ctx, c.account.command(n.folder, "/bin/cp", "-a", leader.DataDir(), n.DataDir()))
	})
	if err != nil {
		return err
	}
	if err := leader.startNew(ctx, o.Faults); err != nil {
		return err
	}
	err = each(followers, func(_ int, n *Node) error {
		if err := n.makeStandby(leader); err != nil {
			return err
		}
		return n.startNew(ctx, o.Faults)
	})
	if err != nil {
		return err
	}
	if err := c.awaitStreaming(ctx, leader, "0/0"); err != nil {
		return err
	}
	if c.temporary {
		return nil
	}
	if err := c.writeManifest(); err != nil {
		return err
	}
	return c.watchdog.keep()
}

// reopen starts the cluster that the folder holds, every node in its last role.
func (c *Cluster) reopen(ctx context.Context, o Options, ports []int) error {
	if err := c.watch(); err != nil {
		return err
	}
	if err := c.watchdog.keep(); err != nil {
		return err
	}
	// At once, because a follower may need the leader to become consistent.
	return each(c.nodes, func(i int, n *Node) error {
		n.port = ports[i]
		if err := n.WriteFile(settingsFile, settings(o)); err != nil {
			return err
		}
		if err := n.Start(ctx); err != nil {
			if !portFree(n.port) {
				return fmt.Errorf("port %d of %s is taken by another program: %w", n.port, n.name, err)
			}
			return err
		}
		return n.openLink(o.Faults)
	})
}

// watch starts the watchdog, before anything that it would have to remove.
func (c *Cluster) watch() error {
	own := ""
	if c.temporary {
		own = c.dir
	}
	folders := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		folders[i] = n.folder
	}
	var err error
	c.watchdog, err = startWatchdog(c.lock, own, folders)
	return err
}

// initialize makes the data folder of the first node.
func (n *Node) initialize(ctx context.Context, o Options) error {
	a := n.cluster.account
	err := run(ctx, a.command(n.folder, n.cluster.Program("initdb"), "--pgdata="+n.DataDir(),
		"--username="+superuser, "--auth=trust", "--encoding=UTF8", "--no-locale", "--data-checksums", "--no-sync"))
	if err != nil {
		return err
	}
	if err := n.WriteFile(settingsFile, settings(o)); err != nil {
		return err
	}
	if n.host != nil {
		// The trust that initdb gives to this host, for the hosts.
		if err := n.appendTo("pg_hba.conf", "host all all "+n.host.Address+"/24 trust\nhost replication all "+n.host.Address+"/24 trust\n"); err != nil {
			return err
		}
	}
	return n.appendTo("postgresql.conf", "include = '"+settingsFile+"'\n")
}

// settings is the text of settingsFile.
func settings(o Options) []byte {
	set := map[string]string{
		"hot_standby":     "on",
		"wal_level":       "replica",
		"max_connections": "200",
		"max_wal_senders": fmt.Sprint(10 + 2*o.Followers),
		// So that PREPARE TRANSACTION works.
		"max_prepared_transactions": "20",
		"max_replication_slots":     fmt.Sprint(10 + 2*o.Followers),
		// A follower that is held up must not fill the disk.
		"max_slot_wal_keep_size": "8GB",
		// An old leader needs its log from before a promotion to be rewound.
		"wal_keep_size": "256MB",
		// A follower looks for its leader again at once, not after 5 s.
		"wal_retrieve_retry_interval": "100ms",
		"recovery_min_apply_delay":    milliseconds(o.ApplyDelay),
		// In the data folder, because POSIX segments outlive a server that is killed.
		"dynamic_shared_memory_type": "mmap",
	}
	maps.Copy(set, o.Settings)
	var text []byte
	quote := strings.NewReplacer(`\`, `\\`, `'`, `''`)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		text = fmt.Appendf(text, "%s = '%s'\n", name, quote.Replace(set[name]))
	}
	return text
}

// milliseconds prints d as a setting's value.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

func (n *Node) appendTo(name, text string) error {
	f, err := os.OpenFile(filepath.Join(n.DataDir(), name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// makeStandby turns a cold copy into a follower, as pg_basebackup -R does.
func (n *Node) makeStandby(leader *Node) error {
	if err := n.appendTo("postgresql.auto.conf", "primary_conninfo = '"+n.conninfo(leader)+"'\n"); err != nil {
		return err
	}
	return n.WriteFile("standby.signal", nil)
}

// conninfo is how follower n reaches its leader. It holds no quote.
func (n *Node) conninfo(leader *Node) string {
	address := leader.ServerAddr()
	if n.cluster.faultReplication {
		address = leader.Addr()
	}
	h, port, _ := net.SplitHostPort(address)
	return "host=" + h + " port=" + port + " user=" + superuser + " sslmode=disable"
}

// startNew starts a node for the first time and makes it ready to be anyone's
// leader.
func (n *Node) startNew(ctx context.Context, faults bool) error {
	port := freePort
	if n.host != nil {
		port = func() int { return 5432 } // it has the host to itself
	}
	if err := n.startOn(ctx, port); err != nil {
		return err
	}
	if err := n.openLink(faults); err != nil {
		return err
	}
	return n.makeSlots(ctx)
}

// startOn starts the server on the port that next returns, and on the one after
// that if another program was quicker to take it.
func (n *Node) startOn(ctx context.Context, next func() int) error {
	const tries = 10
	for try := 1; ; try++ {
		n.port = next()
		err := n.Start(ctx)
		if ended := (*exitError)(nil); !errors.As(err, &ended) || portFree(n.port) || try == tries {
			return err
		}
	}
}

func (n *Node) openLink(faults bool) error {
	if !faults {
		return nil
	}
	var err error
	n.link, err = NewLink(n.ServerAddr())
	return err
}
