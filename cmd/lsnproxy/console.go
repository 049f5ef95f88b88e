package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/session"
	"github.com/lsnproxy/lsnproxy/wire"
)

// consoleConfig says who may use the console, and as what database it goes.
type consoleConfig struct {
	Database string   `mapstructure:"database"`
	Users    []string `mapstructure:"users"`    // may do everything
	Watchers []string `mapstructure:"watchers"` // may have things shown
}

func (c *config) checkConsole(found *problems) {
	if c.Console.Database == "" {
		found.add("console.database", "must not be empty; without console.users there is no console")
	}
	for key, users := range map[string][]string{"console.users": c.Console.Users, "console.watchers": c.Console.Watchers} {
		for i, user := range users {
			if user == "" {
				found.add(fmt.Sprintf("%s[%d]", key, i), "must not be empty")
			}
		}
	}
}

// console is the console as package session wants it; nil if nobody may use it.
func (p *proxy) console(c config) *session.Console {
	k := c.Console
	if len(k.Users)+len(k.Watchers) == 0 {
		return nil
	}
	all := p.source(c)
	all.Switchover = p.switchoverAnywhere
	watching := all
	watching.Switchover = nil
	return &session.Console{
		Database: k.Database, Version: "lsnproxy " + versionText(),
		Admits: func(user string) bool { return slices.Contains(k.Users, user) || slices.Contains(k.Watchers, user) },
		Run: func(ctx context.Context, user, statements string) ([]session.Table, error) {
			source := &watching
			if slices.Contains(k.Users, user) {
				source = &all
			}
			answers, err := source.Console(ctx, statements)
			tables := make([]session.Table, len(answers))
			for i, a := range answers {
				tables[i] = session.Table(a)
			}
			var refused *admin.Refusal
			if errors.As(err, &refused) {
				err = &wire.Error{Code: refused.SQLSTATE, Message: refused.Message, Hint: refused.Hint}
			}
			return tables, err
		},
	}
}

// source is what admin shows and does.
func (p *proxy) source(c config) admin.Source {
	return admin.Source{
		Snapshot: p.snapshot, Ready: p.ready, Status: p.status, Vote: p.vote, Switchover: p.switchover,
		Clients: p.listClients, Servers: p.listServers, Config: func() []admin.Setting { return settings(c) },
	}
}

func (p *proxy) listClients() []admin.Client {
	v := p.board.View()
	var all []admin.Client
	for _, c := range p.server.List() {
		a := admin.Client{
			Address: c.Address, User: c.User, Database: c.Database, State: c.State, PID: c.PID, Begun: c.Begun,
			Pinned: c.Pinned, Token: c.Token.String(),
		}
		if c.Holds {
			a.Node, a.ServerPID = v.Nodes[c.Node].Address, c.ServerPID
		}
		all = append(all, a)
	}
	return all
}

// listServers tells of the connections that clients hold, and of those that rest.
func (p *proxy) listServers() []admin.Server {
	v := p.board.View()
	var all []admin.Server
	for _, c := range p.server.List() {
		if c.Holds {
			all = append(all, admin.Server{
				Node: v.Nodes[c.Node].Address, Database: c.Database, User: c.User, State: "active",
				PID: c.ServerPID, Begun: c.ServerBorn, Client: c.Address,
			})
		}
	}
	for _, r := range p.pool.Resting() {
		all = append(all, admin.Server{Node: r.Address, Database: r.Database, User: r.User, State: "idle", PID: r.PID, Begun: r.Born})
	}
	return all
}

// settings is a configuration key by key. What is secret is not told.
func settings(c config) []admin.Setting {
	all := flat(nil, "", reflect.ValueOf(c))
	normal := make(map[string]string)
	for _, s := range flat(nil, "", reflect.ValueOf(defaults())) {
		normal[s.Key] = s.Value
	}
	for i := range all {
		all[i].Default = normal[all[i].Key]
	}
	return all
}

func flat(all []admin.Setting, key string, v reflect.Value) []admin.Setting {
	_, prints := v.Interface().(fmt.Stringer)
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil(): // as the section says that it overrules
		return all
	case v.Kind() == reflect.Pointer:
		return flat(all, key, v.Elem())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("mapstructure")
			if key != "" {
				name = key + "." + name
			}
			all = flat(all, name, v.Field(i))
		}
		return all
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			all = flat(all, fmt.Sprintf("%s[%d]", key, i), v.Index(i))
		}
		return all
	case v.Kind() == reflect.Slice && !prints:
		words := make([]string, v.Len())
		for i := range words {
			words[i] = fmt.Sprint(v.Index(i).Interface())
		}
		return append(all, admin.Setting{Key: key, Value: strings.Join(words, ", ")})
	}
	value := fmt.Sprint(v.Interface())
	if last := key[strings.LastIndexByte(key, '.')+1:]; value != "" && (last == "password" || last == "key") {
		value = "(secret)"
	}
	return append(all, admin.Setting{Key: key, Value: value})
}

// switchoverAnywhere is switchover, passed on to the coordinator where that is another
// proxy.
func (p *proxy) switchoverAnywhere(ctx context.Context, to string) error {
	err := p.switchover(ctx, to)
	var elsewhere *admin.Elsewhere
	if !errors.As(err, &elsewhere) || elsewhere.HTTP == "" {
		return err
	}
	coordinator := remote{address: elsewhere.HTTP}
	return coordinator.call(http.MethodPost, "/switchover?to="+url.QueryEscape(to), nil)
}
