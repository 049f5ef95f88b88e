package session

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

func TestPolicyVariables(t *testing.T) {
	base := route.Policy{Level: route.LevelService, MaxAge: time.Minute, Wait: time.Second, NoFollower: route.FallError}
	base.Waits[route.LevelStrong] = route.LevelWait{Set: true, Time: time.Minute}
	everywhere := func(p *route.Policy, d time.Duration) { p.Wait, p.Waits = d, [route.LevelCount]route.LevelWait{} }
	for _, c := range []struct {
		name, value string
		want        func(*route.Policy)
	}{
		{"consistency", "Eventual", func(p *route.Policy) { p.Level = route.LevelEventual }},
		{"consistency", "", func(*route.Policy) {}},
		{"wait", "50ms", func(p *route.Policy) { everywhere(p, 50*time.Millisecond) }},
		{"wait", "1.5 s", func(p *route.Policy) { everywhere(p, 1500*time.Millisecond) }},
		{"wait", "2min", func(p *route.Policy) { everywhere(p, 2*time.Minute) }},
		{"wait", "0", func(p *route.Policy) { everywhere(p, 0) }},
		{"fallback", "stale", func(p *route.Policy) { p.Spent, p.NoFollower = route.FallStale, route.FallStale }},
		{"delivery", "Lazy", func(p *route.Policy) { p.Delivery = route.DeliverLazy }},
		{"optimistic", "ON", func(p *route.Policy) { p.Optimistic = true }},
		{"optimistic", "off", func(p *route.Policy) { p.Optimistic = false }},
		{"lost_write", "notice", func(p *route.Policy) { p.Lost = route.LostNotice }},
		{"staleness", "500ms", func(p *route.Policy) { p.MaxAge = 500 * time.Millisecond }},
		{"staleness", "16MB", func(p *route.Policy) { p.MaxAge, p.MaxBytes = 0, 16<<20 }},
		{"staleness", " 64kB , 1s ", func(p *route.Policy) { p.MaxAge, p.MaxBytes = time.Second, 64<<10 }},
		{"staleness", "", func(*route.Policy) {}},
	} {
		want := base
		c.want(&want)
		if got, err := withVariable(base, base, c.name, c.value); err != nil || got != want {
			t.Errorf("%s = %q: %+v, %v; want %+v", c.name, c.value, got, err, want)
		}
	}
	if got := policyValue(&base, "wait"); got != "1s" {
		t.Errorf("service waits %s", got)
	}
	strong := base
	strong.Level = route.LevelStrong
	if got := policyValue(&strong, "wait"); got != "60s" {
		t.Errorf("strong waits %s", got)
	}
	for _, c := range [][3]string{
		{"consistency", "sesion", "22023"},
		{"wait", "50", "22023"},
		{"wait", "-1s", "22023"},
		{"wait", "NaNs", "22023"},
		{"wait", "1e300h", "22023"},
		{"fallback", "leader ship", "22023"},
		{"delivery", "late", "22023"},
		{"optimistic", "maybe", "22023"},
		{"lost_write", "hide", "22023"},
		{"staleness", "1s,2s", "22023"},
		{"staleness", "1MB,2MB", "22023"},
		{"staleness", "soon", "22023"},
		{"staleness", ",", "22023"},
		{"node", "x", "55P02"},
	} {
		_, err := withVariable(base, base, c[0], c[1])
		var e *wire.Error
		if !errors.As(err, &e) || e.Code != c[2] || !strings.Contains(e.Message, "lsnproxy."+c[0]) || e.Hint == "" {
			t.Errorf("%s = %q: %v", c[0], c[1], err)
		}
	}
}

func TestOwnParams(t *testing.T) {
	for _, c := range []struct{ options, rest, own string }{
		{"-c lsnproxy.consistency=eventual", "", "consistency=eventual"},
		{"-clsnproxy.wait=1s -c geqo=off", "-c geqo=off", "wait=1s"},
		{"-c geqo=off --LSNproxy.wait=1s --work-mem=1MB", "-c geqo=off --work-mem=1MB", "wait=1s"},
		{`-c search_path=a\ b\\c -c lsnproxy.staleness=1s,\ 1MB`, `-c search_path=a\ b\\c`, "staleness=1s, 1MB"},
		{"-c geqo=off", "-c geqo=off", ""},
		{"-e -S 100 -c", "-e -S 100 -c", ""},
		{"", "", ""},
	} {
		rest, own := ownOptions(c.options)
		var got []string
		for _, p := range own {
			got = append(got, p.Name+"="+p.Value)
		}
		if rest != c.rest || strings.Join(got, ";") != c.own {
			t.Errorf("%q: rest %q, own %q", c.options, rest, got)
		}
	}
	rest, own := ownParams([]wire.Param{
		{Name: "lsnproxy.Consistency", Value: "strong"},
		{Name: "options", Value: "-c lsnproxy.wait=1s"},
		{Name: "application_name", Value: "a  b"},
	})
	if !reflect.DeepEqual(rest, []wire.Param{{Name: "application_name", Value: "a  b"}}) ||
		!reflect.DeepEqual(own, []wire.Param{{Name: "consistency", Value: "strong"}, {Name: "wait", Value: "1s"}}) {
		t.Errorf("rest %v, own %v", rest, own)
	}
	untouched := []wire.Param{{Name: "options", Value: ` -c   geqo=off `}}
	if rest, _ := ownParams(untouched); !reflect.DeepEqual(rest, untouched) {
		t.Errorf("without our variables options became %q", rest)
	}
}
