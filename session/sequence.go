package session

import (
	"github.com/lsnproxy/lsnproxy/route"
)

// The server's session remembers what nextval has given there last, for currval
// and lastval. So what may call nextval, or ask for its value, on a connection
// where another session has called it takes that away first: a session gets its
// own value, or PostgreSQL's own error that there is none.
//
// To hold a connection after each nextval would end pooling for all who have
// columns with sequences. So it begins when a user of the database has asked,
// outside a transaction, for what an earlier statement left: from then on
// sessions of that user are pinned by what may call nextval.

// sequences readies the held connection for a batch that may call nextval or ask
// for its value. It returns the query to go in front, if there has to be one.
func (s *session) sequences(class route.Class) []string {
	c := s.conn
	foreign := s.foreign()
	c.Writer = s.serial
	if class.Currval && !class.Multi && s.status == idleStatus {
		s.user.currval.Store(true)
	}
	if foreign {
		return []string{"DISCARD SEQUENCES"}
	}
	return nil
}

// foreign reports whether another session has called nextval on the held connection.
func (s *session) foreign() bool { return s.conn.Writer != s.serial && s.conn.Writer != 0 }
