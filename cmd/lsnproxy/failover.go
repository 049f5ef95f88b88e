package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/failover"
)

// failoverConfig says who changes the leader of the database, and how.
type failoverConfig struct {
	Mode       failover.Mode `mapstructure:"mode"`
	Timeout    time.Duration `mapstructure:"timeout"`
	Durability string        `mapstructure:"durability"` // async or sync
	MaxLost    size          `mapstructure:"max_lost_bytes"`
	RequireAll bool          `mapstructure:"require_all_followers"`
	Drain      time.Duration `mapstructure:"drain"`

	User         string `mapstructure:"user"` // "": monitor.user
	Password     string `mapstructure:"password"`
	PasswordFile string `mapstructure:"password_file"`
	Database     string `mapstructure:"database"` // "": monitor.database
	Record       bool   `mapstructure:"record"`

	Hooks   hooksConfig     `mapstructure:"hooks"`
	Patroni []patroniConfig `mapstructure:"patroni"`
}

// patroniConfig says where the agent of Patroni beside a node answers.
type patroniConfig struct {
	Node string `mapstructure:"node"`
	URL  string `mapstructure:"url"`
}

type hooksConfig struct {
	Suspect []string      `mapstructure:"suspect"`
	Fence   []string      `mapstructure:"fence"`
	Promote []string      `mapstructure:"promote"`
	Repoint []string      `mapstructure:"repoint"`
	Rejoin  []string      `mapstructure:"rejoin"`
	Timeout time.Duration `mapstructure:"timeout"`
}

func failoverDefaults() failoverConfig {
	return failoverConfig{
		Timeout: failover.DefaultTimeout, Durability: "async", MaxLost: 1 << 20, Drain: 10 * time.Second, Record: true,
		Hooks: hooksConfig{Timeout: 30 * time.Second},
	}
}

func (c *config) checkFailover(found *problems) {
	f := &c.Failover
	if f.Durability != "async" && f.Durability != "sync" {
		found.add("failover.durability", "want async or sync, not %q", f.Durability)
	}
	for key, d := range map[string]time.Duration{
		"failover.timeout": f.Timeout, "failover.drain": f.Drain, "failover.hooks.timeout": f.Hooks.Timeout,
	} {
		if d <= 0 {
			found.add(key, "must be more than 0, not %v", d)
		}
	}
	if len(f.Patroni) > 0 && f.Mode == failover.Promote {
		found.add("failover.patroni", "is for failover.mode observe: what Patroni leads nobody else may promote")
	}
	for i, a := range f.Patroni {
		if at := fmt.Sprintf("failover.patroni[%d]", i); !slices.Contains(c.Nodes, a.Node) {
			found.add(at+".node", "%q is not one of the nodes", a.Node)
		} else if u, err := url.Parse(a.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			found.add(at+".url", "want http://host:port")
		}
	}
	if f.User == "" && f.Password != "" {
		found.add("failover.password", "there is no failover.user that it is for")
	}
}

// needsFailover reports whether somebody has to say who leads: a decree is what the
// proxies of a cluster write under, and what a promotion begins with.
func (c *config) needsFailover() bool { return c.needsElection() }

// startFailover begins to look after the leader.
func (p *proxy) startFailover(c config) {
	if !c.needsFailover() {
		return
	}
	f := &c.Failover
	o := failover.Options{
		Settings: failover.Settings{
			Mode: f.Mode, Timeout: f.Timeout, Sync: f.Durability == "sync", MaxLost: uint64(f.MaxLost),
			RequireAll: f.RequireAll, Drain: f.Drain,
		},
		Nodes: c.Nodes, User: f.User, Password: f.Password, Database: f.Database, NoRecord: !f.Record,
		Hooks: failover.Hooks{
			Suspect: f.Hooks.Suspect, Fence: f.Hooks.Fence, Promote: f.Hooks.Promote,
			Repoint: f.Hooks.Repoint, Rejoin: f.Hooks.Rejoin,
		},
		HookTimeout: f.Hooks.Timeout, Acknowledged: p.server.Acknowledged, Log: p.log,
	}
	if len(f.Patroni) > 0 {
		o.Patroni = make(map[string]string)
	}
	for _, a := range f.Patroni {
		o.Patroni[a.Node] = strings.TrimSuffix(a.URL, "/")
	}
	if o.User == "" {
		o.User, o.Password = c.Monitor.User, c.Monitor.Password
	}
	if o.Database == "" {
		o.Database = c.Monitor.Database
	}
	p.failover = failover.New(p.election, o)
	p.failover.Start()
}

func (p *proxy) stopFailover() {
	if p.failover != nil {
		p.failover.Close()
	}
}

// failoverState is what `lsnproxy status` shows of it.
func (p *proxy) failoverState() *admin.FailoverState {
	s := p.failover.Status()
	return &admin.FailoverState{Coordinates: s.Coordinates, Phase: string(s.Phase), Blocked: s.Blocked, Why: s.Why}
}

// switchover has the leader changed.
func (p *proxy) switchover(ctx context.Context, to string) error {
	if p.stage.Load() == starting || p.failover == nil {
		return errors.New("this proxy does not promote: failover.mode is observe")
	}
	err := p.failover.Switchover(ctx, to)
	if errors.Is(err, election.ErrNotCoordinator) {
		return p.elsewhere()
	}
	return err
}

func switchoverCommand() *cobra.Command {
	var r remote
	to := ""
	cmd := &cobra.Command{
		Use:   "switchover [--to HOST:PORT] [--http HOST:PORT]",
		Short: "Have another server lead, without an error for anybody",
		Long: `Have another server lead. New transactions are held, running ones may finish, the
follower catches up and is promoted. The old leader has to be made a follower of the
new one on its host, by lsnproxy rejoin or by the hook of that name.

Any proxy may be asked; it passes the request on to the coordinator.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s admin.Status
			if err := r.call(http.MethodPost, "/switchover?to="+url.QueryEscape(to), nil); err != nil {
				return err
			}
			if err := r.call(http.MethodGet, "/status", &s); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s leads on timeline %d\n", s.Cluster.Decree.Leader, s.Cluster.Decree.Timeline)
			return err
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the server that is to lead, `HOST:PORT` as in nodes (default: the one that is least behind)")
	r.flag(cmd)
	return cmd
}

func rejoinCommand() *cobra.Command {
	var r failover.Rejoin
	noStart, options := false, ""
	cmd := &cobra.Command{
		Use:   "rejoin --data FOLDER --source CONNINFO [--pg-bin FOLDER] [--slot NAME] [--options OPTIONS] [--no-start]",
		Short: "Make an old leader a follower of the present one, on its own host",
		Long: `Make an old leader, or a follower that has received what the leader never had, a
follower of the present leader. It is stopped if it runs, rewound with pg_rewind, and
started. If it cannot be rewound, a fresh base backup takes its folder's place, and the
folder is kept beside it.

Run it on the server's host as the server's user. docs/failover.md tells the rights
that the login at the source needs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() == 0 {
				return errors.New("run it as the server's user: PostgreSQL's programs refuse to run as root")
			}
			r.Log = newLog(defaults().Log, slog.LevelInfo, cmd.ErrOrStderr())
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := r.Run(ctx); err != nil || noStart {
				return err
			}
			return r.Start(ctx, options)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Data, "data", "", "the server's data `FOLDER`")
	f.StringVar(&r.Source, "source", "", "the present leader, as a `CONNINFO` string or URI, with a login that may rewind and replicate")
	f.StringVar(&r.Bin, "pg-bin", "", "take PostgreSQL's programs from `FOLDER` (default: from PATH)")
	f.StringVar(&r.Slot, "slot", "", "receive by the replication slot `NAME`, which is made (default: primary_slot_name as it is)")
	f.StringVar(&options, "options", "", "start the server with these `OPTIONS` on its command line, as pg_ctl -o does")
	f.BoolVar(&noStart, "no-start", false, "do not start the server")
	_ = cmd.MarkFlagRequired("data") // it is a flag of this command
	_ = cmd.MarkFlagRequired("source")
	return cmd
}
