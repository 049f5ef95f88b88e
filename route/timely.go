package route

import (
	"bytes"
	"unicode"
)

// timely are the words by which a text asks when its transaction began ("Current
// Date/Time" and "Date/Time Input" in the manual).
var timely = map[string]bool{
	"now": true, "age": true, "transaction_timestamp": true, "today": true, "tomorrow": true, "yesterday": true,
	"current_timestamp": true, "current_date": true, "current_time": true, "localtime": true, "localtimestamp": true,
}

// Timely reports whether a statement may ask in its own words when its transaction
// began, which is another time on another server. Class.Timed says it of the
// functions and views that it names.
func Timely(text []byte) bool {
	if bytes.IndexByte(text, '\\') >= 0 || bytes.IndexByte(text, '&') >= 0 { // it may be written in other ways
		return true
	}
	for word := range bytes.FieldsFuncSeq(text, func(c rune) bool { return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		if timely[string(bytes.ToLower(word))] {
			return true
		}
	}
	return false
}
