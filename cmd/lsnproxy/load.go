package main

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/viper"
)

// source is where a configuration comes from, the later over the earlier: the
// defaults, a file, settings, the list of nodes.
type source struct {
	file  string   // "": none
	set   []string // KEY=VALUE
	nodes []string // none: not given

	nodesLater bool // the caller will know the nodes; they must not be given
}

// problem is one thing that is wrong with a configuration.
type problem struct{ key, what string }

func (p problem) Error() string { return p.key + ": " + p.what }

// problems is all that is wrong with a configuration.
type problems struct {
	where string
	all   []problem
}

// add notes what is wrong with a key. The first thing found is the cause of what
// is found later.
func (p *problems) add(key, format string, args ...any) {
	if slices.ContainsFunc(p.all, func(x problem) bool { return x.key == key }) {
		return
	}
	p.all = append(p.all, problem{key, fmt.Sprintf(format, args...)})
}

func (p *problems) Error() string {
	var b strings.Builder
	b.WriteString(p.where + ": " + count(len(p.all), "error"))
	for _, x := range p.all {
		b.WriteString("\n  " + x.Error())
	}
	return b.String()
}

// delimiter parts the keys of a path inside viper. Its usual dot would take a
// dot inside a key for one.
const delimiter = "::"

// load reads and checks a configuration. The error is a *problems that holds
// everything that is wrong, or tells that the file cannot be read at all.
func load(s source) (config, error) {
	c := defaults()
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	v.SetConfigType("yaml")
	found := problems{where: "configuration"}
	if s.file != "" {
		found.where = s.file
		f, err := os.Open(s.file)
		if err != nil {
			return c, err
		}
		defer f.Close()
		if err := v.ReadConfig(f); err != nil {
			return c, fmt.Errorf("%s: %w", s.file, err)
		}
	}
	s.override(v, &found)
	unknown(v, &found)
	if err := v.Unmarshal(&c, viper.DecodeHook(convert)); err != nil {
		decodeErrors(err, &found)
	}
	c.readPasswords(&found)
	c.check(&found)
	if s.nodesLater == (len(c.Nodes) > 0) {
		what := "name the servers, as host:port, in any order"
		if s.nodesLater {
			what = "cannot be given here"
		}
		found.add("nodes", "%s", what)
	}
	if len(found.all) > 0 {
		slices.SortStableFunc(found.all, func(a, b problem) int { return strings.Compare(a.key, b.key) })
		return c, &found
	}
	return c, nil
}

// override puts flags and settings over what the file says.
func (s source) override(v *viper.Viper, found *problems) {
	for _, setting := range s.set {
		key, value, ok := strings.Cut(setting, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		t, known := keys[key]
		switch {
		case !ok:
			found.add("--set "+setting, "want KEY=VALUE")
		case !known:
			found.add(key, "unknown key%s", suggestion(key))
		case !scalar(t):
			found.add(key, "--set can only set a single value")
		default:
			v.Set(strings.ReplaceAll(key, ".", delimiter), value)
		}
	}
	if len(s.nodes) > 0 {
		v.Set("nodes", s.nodes)
	}
}

// keys is every key there is with its type: a value, a list, or a section.
// Elements of a list of sections go by "[]".
var keys = keysOf(map[string]reflect.Type{}, "", reflect.TypeFor[config]())

func keysOf(all map[string]reflect.Type, prefix string, t reflect.Type) map[string]reflect.Type {
	for i := range t.NumField() {
		f := t.Field(i)
		path := prefix + f.Tag.Get("mapstructure")
		all[path] = f.Type
		switch {
		case f.Type.Kind() == reflect.Struct:
			keysOf(all, path+".", f.Type)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			keysOf(all, path+"[].", f.Type.Elem())
		}
	}
	return all
}

func scalar(t reflect.Type) bool { return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice }

// unknown finds the keys that do not exist.
func unknown(v *viper.Viper, found *problems) {
	for _, key := range v.AllKeys() {
		path := strings.ReplaceAll(key, delimiter, ".")
		switch _, known := keys[path]; {
		case !known:
			found.add(path, "unknown key%s", suggestion(path))
		case strings.Count(key, delimiter) < strings.Count(path, "."):
			found.add(path, "write it as a key within its section, without the dot")
		}
		list, _ := v.Get(key).([]any)
		for i, element := range list {
			section, _ := element.(map[string]any)
			unknownIn(section, path+"[].", fmt.Sprintf("[%d]", i), found)
		}
	}
}

// unknownIn finds them in a section that is an element of a list, the one with
// the number at, or within such a one.
func unknownIn(section map[string]any, prefix, at string, found *problems) {
	for name, value := range section {
		pattern := prefix + strings.ToLower(name)
		within, _ := value.(map[string]any)
		if _, known := keys[pattern]; !known {
			found.add(strings.ReplaceAll(prefix, "[]", at)+name, "unknown key%s", strings.ReplaceAll(suggestion(pattern), "[]", at))
		} else if keys[pattern].Kind() == reflect.Struct {
			unknownIn(within, pattern+".", at, found)
		}
	}
}

// suggestion names the known key that is nearest to an unknown one, if any is near.
func suggestion(key string) string {
	best, least := "", len(key)/2+1
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		d := distance(key, k)
		if last := k[strings.LastIndexByte(k, '.')+1:]; last == key[strings.LastIndexByte(key, '.')+1:] {
			d = min(d, 2) // the right name in the wrong section
		}
		if d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is how many letters must be changed, added or removed to make a b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// convert makes the values of the file and of --set into what config holds, and
// refuses what viper would bend: it takes a number for a string, a value for a
// list of one, and a time without a unit for nanoseconds.
func convert(from, to reflect.Value) (any, error) {
	in := from.Interface()
	text, isText := in.(string)
	if to.Type() == reflect.TypeFor[time.Duration]() {
		return duration(in)
	}
	if to.Type() == reflect.TypeFor[slog.Level]() {
		var level slog.Level
		if level.UnmarshalText([]byte(text)) != nil {
			return nil, fmt.Errorf("want debug, info, warn or error, not %v", in)
		}
		return level, nil
	}
	if u, ok := to.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText(fmt.Append(nil, in)); err != nil {
			return nil, err
		}
		return to.Interface(), nil
	}
	switch to.Kind() {
	case reflect.String:
		if !isText {
			return nil, errors.New("want text: put it in quotes") // it may be a password: do not show it
		}
	case reflect.Int:
		if isText {
			n, err := strconv.Atoi(text)
			if err != nil {
				return nil, fmt.Errorf("want a whole number, not %q", text)
			}
			return n, nil
		}
		if from.Kind() != reflect.Int {
			return nil, fmt.Errorf("want a whole number, not %v", in)
		}
	case reflect.Bool:
		if isText {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return nil, fmt.Errorf("want true or false, not %q", text)
			}
			return b, nil
		}
		if from.Kind() != reflect.Bool {
			return nil, fmt.Errorf("want true or false, not %v", in)
		}
	case reflect.Slice:
		if from.Kind() != reflect.Slice {
			return nil, fmt.Errorf("want a list, not %v", in)
		}
	case reflect.Struct:
		if from.Kind() != reflect.Map && from.Type() != to.Type() {
			return nil, fmt.Errorf("want a section of keys, not %v", in)
		}
	}
	return in, nil
}

func duration(in any) (any, error) {
	text, isText := in.(string)
	if in == 0 {
		return time.Duration(0), nil
	}
	if !isText {
		return nil, fmt.Errorf("want a time with its unit, like 50ms or 10s, not %v", in)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("want a time with its unit, like 50ms or 10s, not %q", text)
	}
	return d, nil
}

// decodeErrors takes viper's errors apart: each is about one key.
func decodeErrors(err error, found *problems) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			decodeErrors(e, found)
		}
		return
	}
	if named, ok := err.(interface {
		error
		Name() string
		Unwrap() error
	}); ok {
		found.add(named.Name(), "%v", named.Unwrap())
		return
	}
	if inner := errors.Unwrap(err); inner != nil {
		decodeErrors(inner, found)
		return
	}
	found.add("", "%v", err)
}
