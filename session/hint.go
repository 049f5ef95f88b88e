package session

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A statement may carry variables of the proxy that count for it alone, in a
// comment at its beginning or end:
//
//	/* lsnproxy: consistency=eventual, wait=50ms */ SELECT ...
//	SELECT ... /*lsnproxy_consistency='eventual',traceparent='00-...'*/
//
// The second is how sqlcommenter writes: values are quoted and URL-encoded, and
// there is more in it than is ours.

// hintOf returns the text of the comment that holds variables of ours, if there
// is one.
func hintOf(text []byte) string {
	if !bytes.Contains(text, []byte("lsnproxy")) { // almost all there is
		return ""
	}
	text = bytes.TrimSpace(text)
	if inner, ok := bytes.CutPrefix(text, []byte("/*")); ok {
		if inner, _, ok := bytes.Cut(inner, []byte("*/")); ok && ours(inner) {
			return string(inner)
		}
	}
	// What ends in this cannot but end in a comment: as the end of a string or an
	// operator it would be no statement.
	text = bytes.TrimRight(text, "; \t\r\n\f")
	if outer, ok := bytes.CutSuffix(text, []byte("*/")); ok {
		if at := bytes.LastIndex(outer, []byte("/*")); at >= 0 && ours(outer[at+2:]) {
			return string(outer[at+2:])
		}
	}
	return ""
}

// ours reports whether a comment holds variables of the proxy.
func ours(comment []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(comment), []byte("lsnproxy:")) || bytes.Contains(comment, []byte("lsnproxy_"))
}

// hinted returns the variables that a comment holds.
func hinted(comment string) ([]ownSet, error) {
	list, plain := strings.CutPrefix(strings.TrimSpace(comment), "lsnproxy:")
	var all []ownSet
	for part := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(part, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case plain && !ok && len(all) > 0 && name != "": // the second part of a value
			all[len(all)-1].value += "," + name
		case plain && !ok:
			return nil, badHint(comment)
		case plain:
			all = append(all, ownSet{strings.ToLower(name), strings.Trim(value, "'")})
		case strings.HasPrefix(name, "lsnproxy_"):
			decoded, err := url.PathUnescape(strings.Trim(value, "'"))
			if err != nil || !ok {
				return nil, badHint(comment)
			}
			all = append(all, ownSet{strings.TrimPrefix(name, "lsnproxy_"), decoded})
		}
	}
	return all, nil
}

func badHint(comment string) error {
	return &wire.Error{
		Code: "22023", Message: fmt.Sprintf("invalid hint \"%s\"", strings.TrimSpace(comment)),
		Hint: "Write it like /* lsnproxy: consistency=eventual, wait=50ms */.",
	}
}

// heedHint returns the policy of a statement with a hint.
func (s *session) heedHint(comment string) (*route.Policy, error) {
	variables, err := hinted(comment)
	if err != nil {
		return nil, err
	}
	p := *s.policy
	for _, own := range variables {
		if p, err = s.vary(p, own); err != nil {
			return nil, err
		}
	}
	return &p, nil
}
