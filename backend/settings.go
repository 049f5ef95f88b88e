package backend

// Settings are the settings of a session. They are never changed once made, so
// that comparing two pointers tells whether a connection is in line.
type Settings struct {
	Begun  map[string]string // what the server reported at the login; names in lower case
	Values map[string]string // what the session has set since, as SHOW tells it, in the database's encoding
}

// Of returns the value of a setting that servers report.
func (s *Settings) Of(name string) string {
	if value, ok := s.Values[name]; ok {
		return value
	}
	return s.Begun[name]
}
