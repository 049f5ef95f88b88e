package lagwatch

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

const ms = topology.Instant(time.Millisecond)

func TestTrail(t *testing.T) {
	tr := trail{gap: 10 * time.Millisecond}
	if got := tr.behind(100, 100); got != (lag{topology.LagBytesUnknown, topology.LagUnknown, 0}) {
		t.Errorf("with no leader seen the lag is %+v", got)
	}
	tr.add(1000*ms, 100)
	tr.add(1250*ms, 200)
	tr.add(1500*ms, 300)
	for _, c := range []struct {
		at   lsn.LSN
		want lag
		why  string
	}{
		{300, lag{0, 0, 1500 * ms}, "level with the leader"},
		{301, lag{0, 0, 1500 * ms}, "ahead of the leader's last sample"},
		{299, lag{1, 250 * time.Millisecond, 1250 * ms}, "the leader was past it some time after the second sample"},
		{200, lag{100, 250 * time.Millisecond, 1250 * ms}, "level with the second sample"},
		{199, lag{101, 500 * time.Millisecond, 1000 * ms}, "just short of the second"},
		{100, lag{200, 500 * time.Millisecond, 1000 * ms}, "level with the first"},
		{99, lag{201, topology.LagUnknown, 0}, "older than all that was seen"},
	} {
		if got := tr.behind(c.at, c.at); got != c.want {
			t.Errorf("behind(%d) = %+v, want %+v: %s", c.at, got, c.want, c.why)
		}
	}
}

func TestIdleLeaderLeavesNobodyBehind(t *testing.T) {
	tr := trail{gap: 10 * time.Millisecond}
	for at := topology.Instant(0); at < 3_600_000*ms; at += 250 * ms {
		tr.add(at, 100)
	}
	if got := tr.behind(100, 100); got != (lag{fresh: 3_599_750 * ms}) {
		t.Errorf("behind an idle leader: %+v", got)
	}
	tr.add(3_600_000*ms, 108)
	if got := tr.behind(100, 100); got != (lag{8, 250 * time.Millisecond, 3_599_750 * ms}) {
		t.Errorf("after the first write in an hour: %+v", got)
	}
}

func TestUnfinishedRecordIsNoLag(t *testing.T) {
	tr := trail{}
	tr.add(1000*ms, 3*page)
	tr.add(2000*ms, 20*page)
	for _, c := range []struct {
		at, received lsn.LSN
		late         bool
		why          string
	}{
		{20*page - 5000, 20 * page, false, "has all that was flushed, and its end may be part of a record"},
		{20*page - 5000, 20*page - 1, true, "has not received it all"},
		{20*page - unfinished, 20 * page, true, "more than a record is left to replay"},
	} {
		got := tr.behind(c.at, c.received)
		if (got.bytes > 0 || got.time > 0) != c.late {
			t.Errorf("%s: %+v", c.why, got)
		}
		if got.fresh != 1000*ms {
			t.Errorf("%s: fresh as of %d", c.why, got.fresh)
		}
	}
	tr.add(3000*ms, 20*page+8)
	if got := tr.behind(20*page-5000, 20*page+8); got.bytes == 0 {
		t.Error("flushed up to the end of a record, and still no lag")
	}
}

func TestTrailAfterFailover(t *testing.T) {
	tr := trail{}
	tr.add(1000*ms, 100)
	tr.add(2000*ms, 500)
	tr.add(3000*ms, 300) // the new leader never had what came after 300
	if got := tr.behind(300, 300); got != (lag{fresh: 3000 * ms}) {
		t.Errorf("level with the new leader: %+v", got)
	}
	if got := tr.behind(250, 250); got != (lag{50, 2 * time.Second, 1000 * ms}) {
		t.Errorf("behind the new leader: %+v", got)
	}
}

// The lag in time is never too short: what the leader had that long ago, the
// follower has. And it is too long by no more than a gap and a pause.
func TestTrailBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gap := time.Duration(rapid.IntRange(0, 50).Draw(t, "gap"))
		tr := trail{gap: gap}
		var truth []mark
		var longest time.Duration
		now := mark{at: 1, lsn: 1}
		for range rapid.IntRange(1, 300).Draw(t, "samples") {
			tr.add(now.at, now.lsn)
			truth = append(truth, now)
			pause := rapid.IntRange(1, 40).Draw(t, "pause")
			longest = max(longest, time.Duration(pause))
			now.at += topology.Instant(pause)
			now.lsn += lsn.LSN(rapid.IntRange(0, 3).Draw(t, "bytes"))
		}
		at := lsn.LSN(rapid.IntRange(0, int(now.lsn)).Draw(t, "follower"))
		got := tr.behind(at, at)
		for _, was := range truth {
			if got.fresh == was.at && was.lsn > at {
				t.Fatalf("fresh as of %d, when the leader was at %v", got.fresh, was.lsn)
			}
		}
		latest := truth[len(truth)-1]
		// The first sample past the follower: the leader passed it between that
		// sample and the one before.
		passed := latest.at
		for i := len(truth) - 1; i >= 0 && truth[i].lsn > at; i-- {
			passed = truth[i].at
		}
		least := latest.at.Since(passed)
		if got.time < least {
			t.Fatalf("lag %v is shorter than %v", got.time, least)
		}
		if len(truth) <= marks && at >= 1 && got.time > least+gap+longest {
			t.Fatalf("lag %v, more than %v + gap %v + pause %v", got.time, least, gap, longest)
		}
	})
}

func TestJudge(t *testing.T) {
	l := limits{bytes: 1000, time: time.Second, calm: 500 * time.Millisecond}
	usable := standing{state: topology.Usable}
	lagging := standing{state: topology.Lagging}
	unjudged := standing{}
	const second = time.Second
	for _, c := range []struct {
		name string
		was  standing
		lag  lag
		now  topology.Instant
		want standing
		why  string
	}{
		{"level", usable, lag{bytes: 0, time: 0}, 1, usable, ""},
		{"at the limit", usable, lag{bytes: 1000, time: second}, 1, usable, ""},
		{"bytes over", usable, lag{bytes: 1001, time: 0}, 1, lagging, "1001 bytes behind, limit 1000"},
		{"time over", usable, lag{bytes: 1, time: second + 1}, 1, lagging, "1.000000001s behind, limit 1s"},
		{"time not known", usable, lag{bytes: 1, time: topology.LagUnknown}, 1, lagging, "lag in time not known yet"},
		{"nothing known", usable, lag{bytes: topology.LagBytesUnknown, time: topology.LagUnknown}, 1, lagging, "lag in bytes not known yet"},

		{"first judgement, level", unjudged, lag{bytes: 0, time: 0}, 1, usable, ""},
		{"first judgement, near the limit", unjudged, lag{bytes: 999, time: 0}, 1, usable, ""},
		{"first judgement, over", unjudged, lag{bytes: 1001, time: 0}, 1, lagging, "1001 bytes behind, limit 1000"},
		{"first judgement, time not known", unjudged, lag{bytes: 1, time: topology.LagUnknown}, 1, unjudged, "lag in time not known yet"},

		{"first judgement, bytes over, time not known", unjudged, lag{bytes: 1001, time: topology.LagUnknown}, 1, lagging, "1001 bytes behind, limit 1000"},

		{"still over", lagging, lag{bytes: 5000, time: 0}, 1, lagging, "5000 bytes behind, limit 1000"},
		{"between half and the limit", lagging, lag{bytes: 501, time: 0}, 1, lagging, "not yet under half of the limit: 501 bytes behind, limit 500"},
		{"time between half and the limit", lagging, lag{bytes: 1, time: 501 * time.Millisecond}, 1, lagging, "not yet under half of the limit: 501ms behind, limit 500ms"},
		{
			"first under half", lagging,
			lag{bytes: 500, time: 0},
			7 * ms,
			standing{topology.Lagging, 7 * ms},
			"caught up, not for long enough yet",
		},
		{
			"under half for a while",
			standing{topology.Lagging, 7 * ms},
			lag{bytes: 0, time: 0},
			506 * ms,
			standing{topology.Lagging, 7 * ms},
			"caught up, not for long enough yet",
		},
		{"under half for long enough", standing{topology.Lagging, 7 * ms}, lag{bytes: 0, time: 0}, 507 * ms, usable, ""},
		{
			"a relapse starts over",
			standing{topology.Lagging, 7 * ms},
			lag{bytes: 501, time: 0},
			507 * ms,
			lagging, "not yet under half of the limit: 501 bytes behind, limit 500",
		},
	} {
		got, why := l.judge(c.was, c.lag, c.now)
		if got != c.want || why != c.why {
			t.Errorf("%s: %+v %q, want %+v %q", c.name, got, why, c.want, c.why)
		}
	}
}

func TestNoLimits(t *testing.T) {
	for _, was := range []topology.State{topology.Unknown, topology.Usable} {
		got, why := limits{}.judge(standing{state: was}, lag{bytes: topology.LagBytesUnknown, time: topology.LagUnknown}, 1)
		if got.state != topology.Usable || why != "" {
			t.Errorf("without limits, from %v: %v %q", was, got, why)
		}
	}
}
