package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// fleet is several proxies, each a process of its own, that elect a coordinator.
type fleet struct {
	program string // what they run
	dir     string // of their files; their working folder, too
	members []*member
}

type member struct {
	id, clients, http string
	log               string          // file
	host              *pgcluster.Host // where it runs; nil: here
	args              []string
	cmd               *exec.Cmd
	ended             chan struct{}
}

// startFleet starts n proxies in front of c.Nodes. The first one listens where c says,
// the others on ports that are free now; or each on a host of its own, if hosts are given.
// Their files are in a folder of their own, which is made anew.
func startFleet(program, dir string, c config, set []string, n int, hosts []*pgcluster.Host) (f *fleet, err error) {
	f = &fleet{program: program, dir: dir}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	gossip := make([]string, n)
	ids := make([]string, n)
	for i := range n {
		ids[i] = fmt.Sprintf("proxy%d", i+1)
		if hosts != nil {
			gossip[i] = net.JoinHostPort(hosts[i].Address, "7946")
		} else if gossip[i], err = freeAddress(); err != nil {
			return f, err
		}
	}
	for i := range n {
		m := &member{id: ids[i], clients: c.Listen, http: c.HTTP}
		if hosts != nil {
			m.host = hosts[i]
			m.clients, m.http = net.JoinHostPort(m.host.Address, "6432"), net.JoinHostPort(m.host.Address, "9432")
		}
		for _, address := range []*string{&m.clients, &m.http} {
			if hosts == nil && i > 0 || strings.HasSuffix(*address, ":0") || *address == "" {
				if *address, err = freeAddress(); err != nil {
					return f, err
				}
			}
		}
		m.args = arguments(m, dir, set)
		if err = f.configure(m, map[string]any{
			"nodes": c.Nodes, "listen": m.clients, "http": m.http, "console": map[string]any{"users": append([]string{}, c.Console.Users...)},
			"cluster": map[string]any{"id": m.id, "bind": gossip[i], "join": gossip, "voters": ids, "data": filepath.Join(f.dir, m.id)},
		}); err != nil {
			return f, err
		}
		if err = f.launch(m); err != nil {
			return f, err
		}
		f.members = append(f.members, m)
	}
	return f, nil
}

// freeAddress is one that nobody listens on, by TCP or UDP, at the moment.
func freeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := l.Addr().String()
		packets, err := net.ListenPacket("udp", address)
		_ = l.Close()
		if err == nil {
			return address, packets.Close()
		}
	}
}

// arguments are those of one proxy's command.
func arguments(m *member, dir string, set []string) []string {
	args := []string{"serve", "--config", filepath.Join(dir, m.id+".yaml")}
	for _, s := range set {
		// They have been heeded already, where each proxy has its own.
		if key, _, _ := strings.Cut(s, "="); key != "listen" && key != "http" {
			args = append(args, "--set", s)
		}
	}
	return args
}

// configure writes one proxy's configuration. JSON is YAML, too.
func (f *fleet) configure(m *member, configuration map[string]any) error {
	m.log = filepath.Join(f.dir, m.id+".log")
	text, err := json.Marshal(configuration)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.dir, m.id+".yaml"), text, 0o600)
}

// launch starts one proxy.
func (f *fleet) launch(m *member) error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	m.ended = make(chan struct{})
	m.cmd = exec.Command(f.program, m.args...)
	m.cmd.Dir = f.dir
	m.cmd.Stdout, m.cmd.Stderr = log, log
	// In a session of its own, so that an interrupt from the terminal does not reach it
	// before us, and killed if we are. The signal comes when the thread that started it
	// ends; the runtime keeps its threads.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	start := m.cmd.Start
	if m.host != nil {
		start = func() error { return m.host.Start(m.cmd) }
	}
	if err := start(); err != nil {
		return err
	}
	// Ends with the process, which stop ends and waits for.
	go func() {
		_ = m.cmd.Wait() // how it ended is in its log
		close(m.ended)
	}()
	return nil
}

// stop ends the proxies and removes their files.
func (f *fleet) stop() {
	for _, m := range f.members {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	patience := time.After(3 * time.Second)
	for _, m := range f.members {
		select {
		case <-m.ended:
		case <-patience:
			_ = m.cmd.Process.Kill()
			<-m.ended
		}
	}
	_ = os.RemoveAll(f.dir) // whose parent is removed next, or kept
}

// status asks one proxy.
func (m *member) status(ctx context.Context) (s admin.Status, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.http+"/status", nil)
	if err != nil {
		return s, err
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	return s, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&s)
}

// status is what the first proxy that answers and has a coordinator knows.
func (f *fleet) status(ctx context.Context) (admin.Status, error) {
	for _, m := range f.members {
		s, err := m.status(ctx)
		if err == nil && s.Cluster != nil && s.Cluster.Quorum {
			return s, nil
		}
	}
	return admin.Status{}, errors.New("no proxy is in touch with a coordinator")
}

// ready reports whether every proxy may write and sees all the followers.
func (f *fleet) ready(ctx context.Context, followers int) error {
	for _, m := range f.members {
		select {
		case <-m.ended:
			log, _ := os.ReadFile(m.log)
			return &fatal{fmt.Errorf("%s has ended:\n%s", m.id, log)}
		default:
		}
		s, err := m.status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", m.id, err)
		}
		usable := 0
		for _, n := range s.Nodes {
			if !n.Leader && n.State == "usable" {
				usable++
			}
		}
		if s.Cluster == nil || s.Cluster.Lease.Seconds == 0 || usable < followers {
			return fmt.Errorf("%s: %d of %d followers usable, %+v", m.id, usable, followers, s.Cluster)
		}
	}
	return nil
}

// fatal is an error that waiting does not mend.
type fatal struct{ error }
