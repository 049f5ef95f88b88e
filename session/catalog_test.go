package session

import "testing"

// A name that a client has made up is not looked for over and over.
func TestCatalogOfDatabaseThatNobodyEntered(t *testing.T) {
	s := &Server{} // whatever a load needs is missing
	s.mu.databases = make(map[string]*database)
	d := s.database("there_is_none")
	d.load()
	if d.mu.loading {
		t.Error("is being loaded")
	}
}
