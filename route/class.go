// Package route decides where a statement may run.
//
// Classify reads one query string the way PostgreSQL's scanner and grammar
// would and says whether it is provably a read that means the same on a
// follower; Pick chooses the node of a read. Both are functions of their
// arguments: nothing here does I/O, keeps time or starts a goroutine.
//
// What a name stands for (does this function write? is this a view over one
// that does?) comes from a Catalog, built from the answers to CatalogQuery.
package route

import "strings"

// Kind is what a query string asks of the session.
type Kind uint8

// The kinds. The zero value is the safe one.
const (
	Write         Kind = iota // to the leader: it writes, or is not provably a read
	Read                      // may run on a follower
	Empty                     // no statement at all: white space, comments, semicolons
	Begin                     // begins a transaction that may write
	BeginReadOnly             // begins a transaction a follower accepts
	Commit                    // COMMIT or END, perhaps AND CHAIN
	Rollback                  // ROLLBACK or ABORT of the transaction, perhaps AND CHAIN
	Own                       // SHOW lsnproxy.<Name>, alone in its string
	OwnSet                    // SET or RESET of lsnproxy.<Name>, alone in its string
)

func (k Kind) String() string {
	return [...]string{
		"write", "read", "empty", "begin", "begin read only", "commit", "rollback", "own", "own set",
	}[k]
}

// Reason says what made a statement the kind it is.
type Reason uint8

// The reasons. Those of a Write name the first thing found that is not
// provably a read.
const (
	ReasonUnreadable      Reason = iota // not understood, or not valid
	ReasonRead                          // nothing but reads
	ReasonEmpty                         // no statement
	ReasonTransaction                   // transaction control
	ReasonSavepoint                     // SAVEPOINT, RELEASE and ROLLBACK TO
	ReasonCursor                        // a cursor that goes with its transaction, over nothing but reads
	ReasonOwn                           // a variable of the proxy
	ReasonMultiple                      // several statements in one string
	ReasonDML                           // INSERT, UPDATE, DELETE, MERGE
	ReasonModifyingCTE                  // one of those inside a query
	ReasonLocking                       // LOCK, advisory locks
	ReasonRowLocking                    // FOR UPDATE and the like
	ReasonSelectInto                    // SELECT INTO
	ReasonVolatile                      // calls a function that may write
	ReasonUnknownFunction               // calls a function the catalog does not know
	ReasonNodeSpecific                  // its answer, or what it acts on, belongs to one server
	ReasonSessionState                  // reads or changes what the server's session remembers
	ReasonDynamic                       // calls a function that runs SQL or reads relations named in its arguments
	ReasonRelation                      // reads a relation that can be read on the leader only
	ReasonUnknownRelation               // reads a relation the catalog does not know
	ReasonOperator                      // uses an operator that may write, or that the catalog does not know
	ReasonType                          // converts to or from a type whose conversion may write
	ReasonSetting                       // SET or RESET
	ReasonUtility                       // any other command
)

func (r Reason) String() string {
	return [...]string{
		"not understood", "reads only", "no statement", "transaction control", "savepoint", "cursor", "variable of the proxy",
		"several statements", "INSERT, UPDATE, DELETE or MERGE", "writes inside a query", "locks", "locks rows",
		"SELECT INTO", "volatile function", "unknown function", "differs from server to server",
		"session state", "runs SQL given as text", "relation to be read on the leader", "unknown relation",
		"volatile or unknown operator", "volatile conversion", "setting", "command",
	}[r]
}

// Pin is a set of things that statements leave in the server's session and that
// cannot be carried to another connection: the session has to keep this one.
type Pin uint16

// The pins.
const (
	PinSetting    Pin = 1 << iota // a setting that cannot be carried: its name is not told, or its value; setseed
	PinPrepared                   // PREPARE
	PinListen                     // LISTEN
	PinTemporary                  // a temporary table, view, sequence or function
	PinLock                       // an advisory lock held by the session
	PinCursor                     // DECLARE ... WITH HOLD
	PinLibrary                    // LOAD
	PinBackend                    // the client has opened a connection from inside the server
	PinUnread                     // the statement was not understood, it may be any of these
	PinMode                       // of no statement: the session keeps its connection whatever it does
	PinSequence                   // what currval and lastval tell; given to statements with Nextval when it matters
	PinIdentity                   // the client was told the process id
	PinDefinition                 // of no statement: what one has left behind is not known yet, for definitions have changed

	PinNone Pin = 0
)

var pinNames = [...]string{
	"setting", "prepared statement", "listen", "temporary object", "advisory lock", "cursor with hold",
	"library", "backend", "statement not understood", "pool mode", "sequence", "process id", "definitions",
}

// PinCount is how many pins there are.
const PinCount = len(pinNames)

func (p Pin) String() string {
	var names []string
	for i, name := range pinNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Reset says what state of the server's session a statement ends. In a string
// of several statements it is the widest, in the order given here.
type Reset uint8

// The resets.
const (
	ResetNone          Reset = iota
	ResetSettings            // RESET of the setting Name, or RESET ALL if Name is empty
	ResetDeallocate          // DEALLOCATE of the statement Name
	ResetDeallocateAll       // DEALLOCATE ALL, or several DEALLOCATE in one string
	ResetDiscardAll          // DISCARD ALL
)

func (r Reset) String() string {
	return [...]string{"", "reset", "deallocate", "deallocate all", "discard all"}[r]
}

// Prepared says how a statement deals with the prepared statements of the
// server's session, which it sees under the names they have there.
type Prepared uint8

// The dealings. In a string of several statements all but none are PreparedAny.
const (
	PreparedNone       Prepared = iota
	PreparedEnds                // ends all of them
	PreparedExecute             // EXECUTE of the statement Name
	PreparedDeallocate          // DEALLOCATE of the statement Name
	PreparedAny                 // makes one, lists them, or uses some that are not known
)

func (p Prepared) String() string {
	return [...]string{"", "ends", "execute", "deallocate", "any"}[p]
}

// Class is what Classify found.
type Class struct {
	Kind   Kind
	Reason Reason
	Pin    Pin  // what it may leave in the session
	Frees  Pin  // what of that, left there before, it may take away
	CopyIn bool // it may put the server into copy-in mode, or that cannot be excluded
	Bare   bool // SHOW, LOCK, LISTEN and the like: there is no query in it that could call anything
	Plain  bool // BEGIN of a transaction that may write, and that says nothing of its isolation but READ COMMITTED
	Chain  bool // COMMIT or ROLLBACK ... AND CHAIN
	Multi  bool // several statements in the string
	Schema bool // it may change what a Catalog knows
	Drop   bool // it may take away what a Catalog knows: what is left is as it was
	Native bool // it may define functions in C
	Local  bool // SET LOCAL of Name, or set_config that does the same of a custom setting: until the end of the transaction
	Reset  Reset
	// Sets are the settings that may be changed for longer than a transaction, in
	// lower case and in order, separated by blanks; AllSettings is RESET ALL, AnySetting
	// says that there may be others.
	Sets string
	// Reads are the custom settings that are read, likewise.
	Reads string
	// Empties is the database that nobody else may be connected to: of DROP and ALTER
	// DATABASE, and the TEMPLATE of CREATE DATABASE.
	Empties string
	// Defaults says that sessions which begin later may find other settings.
	Defaults bool

	Prepared Prepared
	Currval  bool // it may ask for what nextval has left in the session
	Timed    bool // what it names may ask when the transaction began; what it says itself, Timely tells
	Nextval  bool // it may call nextval, perhaps by a default or a trigger

	At int // where in the text the token begins that gave the reason

	// Name is, of a string with one statement, the variable of Own and OwnSet
	// (without "lsnproxy."), of SET and of RESET, and those of set_config that are Local, in lower
	// case; and the statement of EXECUTE and DEALLOCATE, folded or unquoted as PostgreSQL does.
	Name string
	// Value is what OwnSet sets Name to; empty for TO DEFAULT and RESET.
	Value string
}

// Made are the custom settings that are set until the end of the transaction, in
// Sets' form: they exist from then on.
func (c *Class) Made() string {
	if !c.Local || !strings.Contains(c.Name, ".") || strings.Trim(c.Name, plainName+" ") != "" {
		return ""
	}
	return c.Name
}

// Unknown reports whether a function is called that the catalog does not know: it
// may leave anything.
func (c *Class) Unknown() bool { return strings.HasPrefix(c.Sets, AnySetting) }
