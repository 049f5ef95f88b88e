package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lsnproxy/lsnproxy/admin"
)

// remote is a running proxy, which a command talks to over HTTP.
type remote struct{ address string }

// flag adds the flag that says which. The environment's default is read when the
// command runs.
func (r *remote) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.address, "http", "", "talk to the proxy whose HTTP port is `HOST:PORT` (default $LSNPROXY_HTTP, else "+defaults().HTTP+")")
}

// call asks the proxy for something, and decodes its answer into result unless
// that is nil. A proxy that cannot do it but knows who can redirects.
func (r *remote) call(method, path string, result any) error {
	address := r.address
	if address == "" {
		address = os.Getenv("LSNPROXY_HTTP")
	}
	if address == "" {
		address = defaults().HTTP
	}
	request, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err
		}
		return fmt.Errorf("no answer from a proxy at %s: %w", address, err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return errors.New(strings.TrimSpace(string(text)))
	}
	if result == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(result)
}

func statusCommand() *cobra.Command {
	var r remote
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status [--http HOST:PORT]",
		Short: "Show what a running proxy knows of the other proxies and of the servers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s admin.Status
			if err := r.call(http.MethodGet, "/status", &s); err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			return printStatus(cmd.OutOrStdout(), &s)
		},
	}
	r.flag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func voterCommand() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "voter",
		Short: "Say which proxies elect the coordinator",
	}
	change := func(use, short, method string) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				return r.call(method, "/voters/"+url.PathEscape(args[0]), nil)
			},
		}
	}
	for _, c := range []*cobra.Command{
		change("add ID", "Give a proxy that is a member a vote", http.MethodPut),
		change("remove ID", "Take a proxy's vote away, for good or before its lost directory is replaced", http.MethodDelete),
	} {
		r.flag(c)
		cmd.AddCommand(c)
	}
	return cmd
}

// printStatus prints a status for people.
func printStatus(to io.Writer, s *admin.Status) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	if c := s.Cluster; c != nil {
		printCluster(w, c)
	} else {
		fmt.Fprintf(w, "one proxy alone, version %s\n\n", s.Version)
	}
	fmt.Fprintln(w, "NODE\tROLE\tSTATE\tTIMELINE\tPOSITION\tLAG\t")
	for _, n := range s.Nodes {
		role := n.Role
		if n.Leader {
			role += " *"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t\n", n.Address, role, n.State, n.Timeline, n.Position, n.Lag)
	}
	if f := s.Failover; f != nil && f.Coordinates {
		state := ""
		if f.Blocked {
			state = ", BLOCKED"
		}
		fmt.Fprintf(w, "\nfailover: %s%s\t%s\n", f.Phase, state, f.Why)
	}
	return w.Flush()
}

func printCluster(w io.Writer, c *admin.Cluster) {
	coordinator := c.Coordinator
	if coordinator == "" {
		coordinator = "none"
	}
	leader := c.Decree.Leader
	if leader == "" {
		leader = "nobody"
	}
	lease := "none"
	if c.Lease.Seconds > 0 {
		lease = fmt.Sprintf("%.1fs of epoch %d", c.Lease.Seconds, c.Lease.Epoch)
		if c.Lease.Retiring {
			lease += ", to finish only"
		}
	}
	fmt.Fprintf(w, "coordinator:\t%s, term %d\n", coordinator, c.Term)
	fmt.Fprintf(w, "decree:\tepoch %d: %s leads on timeline %d\n", c.Decree.Epoch, leader, c.Decree.Timeline)
	fmt.Fprintf(w, "lease of %s:\t%s\n", c.Self, lease)
	if c.Trouble != "" {
		fmt.Fprintf(w, "trouble:\t%s\n", c.Trouble)
	}
	fmt.Fprintln(w, "\nPROXY\tVOTES\tHEALTH\tSINCE\tCLIENTS\tHTTP\tVERSION\t")
	for _, m := range c.Members {
		votes := "no"
		if m.Votes {
			votes = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", m.ID, votes, m.Health, m.Since.Format(time.DateTime), m.Client, m.HTTP, m.Version)
	}
	if len(c.Failovers) > 0 {
		fmt.Fprintln(w, "\nEPOCH\tFROM\tTO\tTRIGGER\tTIMELINE\tPROMOTED\tLOST AT MOST\t")
	}
	for _, f := range c.Failovers {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%d\t\n", f.Epoch, f.Old, f.New, f.Trigger, f.Timeline, f.PromotedAt.Format(time.DateTime), f.LostAtMost)
	}
	fmt.Fprintln(w)
}
