package session

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// policyNames are the proxy's variables that change what a session's reads may
// miss. SET, startup parameters and hints name them alike.
var policyNames = []string{"consistency", "staleness", "wait", "fallback", "delivery", "lost_write", "optimistic"}

// withVariable returns p with one variable set; base is what the value "" (DEFAULT)
// goes back to. The error is what PostgreSQL says of a parameter that cannot have
// this value.
func withVariable(p, base route.Policy, name, value string) (route.Policy, error) {
	var err error
	hint := ""
	value = strings.TrimSpace(value)
	switch name {
	case "consistency":
		if p.Level = base.Level; value != "" {
			p.Level, err = route.ParseLevel(value)
		}
	case "fallback":
		if p.Spent, p.NoFollower = base.Spent, base.NoFollower; value != "" {
			p.Spent, err = route.ParseFallback(value)
			p.NoFollower = p.Spent
		}
	case "delivery":
		if p.Delivery = base.Delivery; value != "" {
			p.Delivery, err = route.ParseDelivery(value)
		}
	case "optimistic":
		if p.Optimistic = base.Optimistic; value != "" {
			p.Optimistic, err = parseBool(value)
		}
	case "lost_write":
		if p.Lost = base.Lost; value != "" {
			p.Lost, err = route.ParseLostWrite(value)
		}
	case "wait":
		if p.Wait, p.Waits = base.Wait, base.Waits; value != "" { // at every level
			p.Waits = [route.LevelCount]route.LevelWait{}
			p.Wait, err = parseTime(value)
		}
	case "staleness":
		if p.MaxAge, p.MaxBytes = base.MaxAge, base.MaxBytes; value != "" {
			p.MaxAge, p.MaxBytes, err = parseStaleness(value)
		}
	default:
		hint = "The variables that can be set are lsnproxy." + strings.Join(policyNames, ", lsnproxy.") + "."
		return p, &wire.Error{Code: "55P02", Message: fmt.Sprintf("parameter \"lsnproxy.%s\" cannot be changed", name), Hint: hint}
	}
	if err != nil {
		return p, &wire.Error{
			Code: "22023", Message: fmt.Sprintf("invalid value for parameter \"lsnproxy.%s\": \"%s\"", name, value),
			Hint: "It " + err.Error() + ".",
		}
	}
	return p, nil
}

// policyValue returns what withVariable would take for a variable's value.
func policyValue(p *route.Policy, name string) string {
	switch name {
	case "consistency":
		return p.Level.String()
	case "fallback":
		return p.Spent.String()
	case "delivery":
		return p.Delivery.String()
	case "optimistic":
		if p.Optimistic {
			return "on"
		}
		return "off"
	case "lost_write":
		return p.Lost.String()
	case "wait":
		return timeText(p.Budget())
	default:
		var bounds []string
		if p.MaxAge > 0 {
			bounds = append(bounds, timeText(p.MaxAge))
		}
		if p.MaxBytes > 0 {
			bounds = append(bounds, strconv.FormatUint(p.MaxBytes, 10)+"B")
		}
		return strings.Join(bounds, ",")
	}
}

// parseBool reads on or off as PostgreSQL does, but for the abbreviations.
func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "on", "true", "yes", "1":
		return true, nil
	case "off", "false", "no", "0":
		return false, nil
	}
	return false, fmt.Errorf("must be on or off")
}

// timeText writes a time in its largest whole unit.
func timeText(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d%time.Millisecond == 0:
		return strconv.FormatInt(int64(d/time.Millisecond), 10) + "ms"
	default:
		return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', -1, 64) + "us"
	}
}

// parseStaleness reads a time, a size, or both with a comma between.
func parseStaleness(text string) (age time.Duration, bytes uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if d, err := parseTime(part); err == nil && age == 0 {
			age = max(d, 1) // 0 would be no bound
			continue
		}
		n, ok := withUnit(part, sizeUnits)
		if !ok || bytes != 0 {
			return 0, 0, fmt.Errorf("must be a time such as 500ms, a size such as 16MB, or one of each with a comma between")
		}
		bytes = max(uint64(n), 1)
	}
	return age, bytes, nil
}

// parseTime reads a time with one of PostgreSQL's units ("Parameter Names and
// Values" in the manual).
func parseTime(text string) (time.Duration, error) {
	if n, ok := withUnit(text, timeUnits); ok {
		return time.Duration(n), nil
	}
	return 0, fmt.Errorf("must be a time with a unit: us, ms, s, min, h or d, such as 50ms")
}

type unit struct {
	name string
	size float64
}

// Longer names go before those that they end in.
var (
	timeUnits = []unit{
		{"us", float64(time.Microsecond)},
		{"ms", float64(time.Millisecond)},
		{"min", float64(time.Minute)},
		{"s", float64(time.Second)},
		{"h", float64(time.Hour)},
		{"d", 24 * float64(time.Hour)},
	}
	sizeUnits = []unit{{"kB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"TB", 1 << 40}, {"B", 1}}
)

// withUnit reads a number with one of the units; 0 needs none.
func withUnit(text string, units []unit) (float64, bool) {
	if text == "0" {
		return 0, true
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		return n * u.size, err == nil && n >= 0 && n*u.size < 1<<62
	}
	return 0, false
}

// ownParams takes the proxy's variables out of the startup parameters: those
// named so, and those that options set with -c or --. What is left goes to the
// servers.
func ownParams(params []wire.Param) (rest, own []wire.Param) {
	for _, p := range params {
		if name, ok := ownName(p.Name); ok {
			own = append(own, wire.Param{Name: name, Value: p.Value})
			continue
		}
		if p.Name == "options" {
			kept, taken := ownOptions(p.Value)
			if own = append(own, taken...); len(taken) > 0 {
				if p.Value = kept; kept == "" {
					continue
				}
			}
		}
		rest = append(rest, p)
	}
	return rest, own
}

// ownName returns the name of a variable of the proxy without its prefix.
func ownName(name string) (string, bool) {
	if len(name) <= len(ownPrefix) || !strings.EqualFold(name[:len(ownPrefix)], ownPrefix) {
		return "", false
	}
	return strings.ToLower(name[len(ownPrefix):]), true
}

// ownOptions takes the proxy's variables out of the startup parameter options,
// which is words as pg_split_opts in utils/init/postinit.c parts them.
func ownOptions(text string) (rest string, own []wire.Param) {
	words := splitOptions(text)
	var kept []string
	for i := 0; i < len(words); i++ {
		word := words[i]
		setting, long := strings.CutPrefix(word, "--")
		if !long {
			var short bool
			if setting, short = strings.CutPrefix(word, "-c"); !short {
				kept = append(kept, word)
				continue
			}
		}
		from := i
		if setting == "" && !long && i+1 < len(words) {
			i++
			setting = words[i]
		}
		name, value, _ := strings.Cut(setting, "=")
		if name, ok := ownName(strings.ReplaceAll(name, "-", "_")); ok {
			own = append(own, wire.Param{Name: name, Value: value})
			continue
		}
		kept = append(kept, words[from:i+1]...)
	}
	for i, word := range kept {
		kept[i] = optionEscapes.Replace(word)
	}
	return strings.Join(kept, " "), own
}

var optionEscapes = strings.NewReplacer(`\`, `\\`, " ", `\ `, "\t", "\\\t", "\n", "\\\n", "\v", "\\\v", "\f", "\\\f", "\r", "\\\r")

// splitOptions parts words at white space; a backslash takes away the meaning of
// the character behind it.
func splitOptions(text string) []string {
	var words []string
	var word []byte
	begun := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			i++
			word, begun = append(word, text[i]), true
		case c == '\\':
		case c == ' ' || c >= '\t' && c <= '\r':
			if begun {
				words = append(words, string(word))
			}
			word, begun = word[:0], false
		default:
			word, begun = append(word, c), true
		}
	}
	if begun {
		words = append(words, string(word))
	}
	return words
}

// startWith gives the session the policy that its startup parameters ask for.
func (s *session) startWith(own []wire.Param) error {
	if len(own) == 0 {
		return nil
	}
	p := *s.policy
	for _, param := range own {
		if param.Name != "token" && !slices.Contains(policyNames, param.Name) {
			return &wire.Error{Code: "42704", Message: "unrecognized configuration parameter \"lsnproxy." + param.Name + "\""}
		}
		var err error
		if p, err = s.vary(p, ownSet{param.Name, param.Value}); err != nil {
			return err
		}
	}
	s.policy, s.base = &p, &p
	return nil
}
