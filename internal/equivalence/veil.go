package equivalence

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"

	"github.com/lsnproxy/lsnproxy/wire"
)

// firstOwnOID is the first OID given to what users make (FirstNormalObjectId in
// access/transam.h).
const firstOwnOID = 16384

// veil hides from the comparison what differs between two runs on one and the
// same server. There is nothing else that is left out:
//
//   - process ids and the secret key: in BackendKeyData and NotificationResponse;
//   - OIDs of what users have made, in RowDescription and ParameterDescription:
//     they are numbered in the order in which a session sees them;
//   - the number in the name of a session's temporary schema, and the OID in that of a
//     TOAST table, in messages;
//   - the schema of a function in PL/pgSQL in the context of messages: it is left out if
//     search_path had it when the server's process first called the function, whatever
//     it is now (do_compile in pl_comp.c), so that it tells what the process has been
//     through, no matter for whom;
//   - in the error of a failed transaction, 25P02, which function of the server's
//     source refused: a statement that was prepared on another connection is
//     refused when it is prepared on this one, not when it is bound;
//   - the same in what ends a session that breaks the protocol, 08P01: whoever
//     reads the client's messages has to say it;
//   - the same at login, and what comes before a refusal: whether a server says that
//     the password is right before or after it finds that a parameter is wrong;
//   - ParameterStatus of lsnproxy.token, which no server sends.
type veil struct {
	login   bool
	numbers map[uint32]int
}

// line tells a message in a line.
func (v *veil) line(typ byte, body []byte) string {
	switch typ {
	case wire.BackendKeyData:
		body = nil
	case wire.NotificationResponse:
		if len(body) >= 4 {
			clear(body[:4])
		}
	case wire.ParameterStatus:
		if strings.HasPrefix(string(body), "lsnproxy.token\x00") {
			return ""
		}
	case wire.RowDescription:
		v.columns(body)
	case wire.ParameterDescription:
		for i := 2; i+4 <= len(body); i += 4 {
			v.hide(body[i:])
		}
	case wire.ErrorResponse, wire.NoticeResponse:
		body = compiled.ReplaceAll(body, []byte("PL/pgSQL function "))
		body = temporary.ReplaceAll(body, []byte("pg_${1}_N"))
		if code := string(wire.Field(append([]byte("E0000"), body...), 'C')); v.login || code == "25P02" || code == "08P01" && strings.HasPrefix(string(body), "SFATAL") {
			body = source.ReplaceAll(body, nil)
		}
	}
	return fmt.Sprintf("%c %+q", typ, body)
}

var (
	temporary = regexp.MustCompile(`pg_(temp|toast)_[0-9]+`)
	compiled  = regexp.MustCompile(`PL/pgSQL function (eq|s[0-9])\.`)
	source    = regexp.MustCompile("F[a-zA-Z_]+\\.c\x00L[0-9]+\x00R[a-zA-Z_]+\x00")
)

// columns hides the OIDs of tables and types in a RowDescription.
func (v *veil) columns(body []byte) {
	for rest := body[min(2, len(body)):]; len(rest) > 0; {
		_, after, ok := wire.CString(rest)
		if !ok || len(after) < 18 {
			return
		}
		v.hide(after)
		v.hide(after[6:])
		rest = after[18:]
	}
}

func (v *veil) hide(oid []byte) {
	n := binary.BigEndian.Uint32(oid)
	if n < firstOwnOID {
		return
	}
	if v.numbers == nil {
		v.numbers = make(map[uint32]int)
	}
	number, ok := v.numbers[n]
	if !ok {
		number = len(v.numbers)
		v.numbers[n] = number
	}
	binary.BigEndian.PutUint32(oid, uint32(firstOwnOID+number))
}
