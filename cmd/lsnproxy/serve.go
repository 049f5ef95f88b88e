package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// flags adds the flags that every configuration has. Those for one key are short
// for --set, and like it go by their order.
func (s *source) flags(cmd *cobra.Command) {
	set := func(flag, prefix, usage string) {
		cmd.Flags().Func(flag, usage, func(value string) error {
			s.set = append(s.set, prefix+value)
			return nil
		})
	}
	set("listen", "listen=", "serve clients on `HOST:PORT`; port 0 takes a free one (default "+defaults().Listen+")")
	set("http", "http=", "serve metrics and health on `HOST:PORT`, \"\" for nowhere (default "+defaults().HTTP+")")
	set("set", "", "set one key of the configuration with `KEY=VALUE`, such as pool.size=40; repeat it for more")
}

// serverFlags adds those that say where servers are to be found.
func (s *source) serverFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.file, "config", "", "read the configuration from `FILE`; configs/lsnproxy.yaml explains every key")
	f.StringArrayVar(&s.nodes, "node", nil, "use the server at `HOST:PORT`; repeat it for each, in any order")
	s.flags(cmd)
}

func serveCommand() *cobra.Command {
	var s source
	cmd := &cobra.Command{
		Use:   "serve (--config FILE | --node HOST:PORT ...)",
		Short: "Run the proxy",
		Long: `Run the proxy in front of a leader and its followers. Name all servers in any
order: which one leads is found out, and found out again after a promotion.

An interrupt or SIGTERM ends it: no new clients, transactions may finish within
shutdown_grace. A second one ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return serve(s) },
	}
	s.serverFlags(cmd)
	return cmd
}

func serve(s source) error {
	if s.file == "" && len(s.nodes) == 0 {
		return errors.New("name the servers: with --node HOST:PORT for each, or in a file with --config FILE")
	}
	clearPG()
	c, err := load(s)
	if err != nil {
		return err
	}
	log := newLog(c.Log, c.Log.Level, os.Stderr)
	c.warn(log)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	p, err := startProxy(c, log)
	if err != nil {
		return err
	}
	p.announce(c)
	got := <-signals
	signal.Stop(signals) // one more ends the process at once
	log.Info("stopping", "signal", got.String(), "grace", c.ShutdownGrace)
	p.close(c.ShutdownGrace)
	log.Info("stopped")
	return nil
}

// announce logs what has been started.
func (p *proxy) announce(c config) {
	var files syscall.Rlimit // raised to the hard limit by package os
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	http := "none"
	if p.http != nil {
		http = p.http.Addr().String()
	}
	p.log.Info("serving", "version", versionText(), "clients", p.clients.Addr().String(), "http", http,
		"nodes", c.Nodes, "loops", len(p.engine.Loops()), "files", files.Cur)
}

func checkCommand() *cobra.Command {
	var s source
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration and say everything that is wrong with it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(s)
			if err != nil {
				return err
			}
			for _, w := range c.warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), c.summary())
			return err
		},
	}
	s.serverFlags(cmd)
	return cmd
}

// summary says in one line what a configuration is.
func (c *config) summary() string {
	http := c.HTTP
	if http == "" {
		http = "none"
	}
	return fmt.Sprintf("ok: clients on %s, HTTP on %s, %s, %s with a password",
		c.Listen, http, count(len(c.Nodes), "server"), count(len(c.Users), "user"))
}

// count is "1 server" or "2 servers".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
