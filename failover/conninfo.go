package failover

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// conninfo is a connection string of libpq in the form of keywords and values
// ("Connection Strings" in the manual), in order. Only where it leads is changed;
// users, passwords and certificates stay as the administrator wrote them.
type conninfo []keyword

type keyword struct{ name, value string }

// nowhere is a folder that does not exist. A follower whose primary_conninfo leads
// there receives from nobody, and nothing else of it is lost.
const nowhere = "/nobody-chosen-by-lsnproxy"

// quietedIn is the folder in nowhere that stands for an epoch. What is done to a node
// because it is quieted is done only if it is so in the same epoch.
func quietedIn(epoch uint64) string { return nowhere + "/" + strconv.FormatUint(epoch, 10) }

// quieted gives the epoch in which a follower was made to receive from nobody.
func (c conninfo) quieted() (epoch uint64, ok bool) {
	text, ok := strings.CutPrefix(c.get("host"), nowhere+"/")
	epoch, err := strconv.ParseUint(text, 10, 64)
	return epoch, ok && err == nil
}

// parseConninfo reads either form, as conninfo_parse and conninfo_uri_parse in
// fe-connect.c do.
func parseConninfo(text string) (conninfo, error) {
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return parseURI(text)
	}
	var c conninfo
	for rest := strings.TrimLeft(text, " \t\n\r"); rest != ""; rest = strings.TrimLeft(rest, " \t\n\r") {
		name, after, ok := strings.Cut(rest, "=")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(name, " \t\n\r'\\") {
			return nil, errors.New("primary_conninfo: a keyword without a value")
		}
		value, after, err := parseValue(strings.TrimLeft(after, " \t\n\r"))
		if err != nil {
			return nil, err
		}
		c = append(c, keyword{name, value})
		rest = after
	}
	return c, nil
}

// parseValue reads one value: up to a space, or in single quotes; a backslash takes
// the next letter as it is.
func parseValue(text string) (value, rest string, err error) {
	var b strings.Builder
	quoted := strings.HasPrefix(text, "'")
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(text); i++ {
		switch ch := text[i]; {
		case ch == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case quoted && ch == '\'':
			return b.String(), text[i+1:], nil
		case !quoted && strings.IndexByte(" \t\n\r", ch) >= 0:
			return b.String(), text[i:], nil
		default:
			b.WriteByte(ch)
		}
	}
	if quoted {
		return "", "", errors.New("primary_conninfo: a quote without its end")
	}
	return b.String(), "", nil
}

func parseURI(text string) (conninfo, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("primary_conninfo: not a valid URI") // the error would show a password
	}
	var c conninfo
	add := func(name, value string) {
		if value != "" {
			c = append(c, keyword{name, value})
		}
	}
	add("host", u.Hostname())
	add("port", u.Port())
	add("user", u.User.Username())
	password, _ := u.User.Password()
	add("password", password)
	add("dbname", strings.TrimPrefix(u.Path, "/"))
	for name, values := range u.Query() {
		add(name, values[len(values)-1])
	}
	return c, nil
}

// get gives a keyword's value; the last one counts.
func (c conninfo) get(name string) string {
	value := ""
	for _, k := range c {
		if k.name == name {
			value = k.value
		}
	}
	return value
}

// address is host:port, or "" if it does not lead to one host.
func (c conninfo) address() string {
	host, port := c.get("host"), c.get("port")
	if address := c.get("hostaddr"); address != "" && host == "" {
		host = address
	}
	if port == "" {
		port = "5432"
	}
	if host == "" || strings.Contains(host, ",") || strings.HasPrefix(host, nowhere) {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// to leads to address; all but where it leads stays as it is.
func (c conninfo) to(address string) (conninfo, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return c.at(host, port), nil
}

func (c conninfo) at(host, port string) conninfo {
	next := conninfo{{"host", host}}
	if port != "" {
		next = append(next, keyword{"port", port})
	}
	for _, k := range c {
		switch k.name {
		case "host", "port", "hostaddr", "target_session_attrs", "load_balance_hosts":
			// They say where to, and of several hosts which one.
		default:
			next = append(next, k)
		}
	}
	return next
}

func (c conninfo) String() string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var words []string
	for _, k := range c {
		words = append(words, k.name+"='"+quote.Replace(k.value)+"'")
	}
	return strings.Join(words, " ")
}
