package lex

// Word is a keyword, or WNone.
type Word uint8

// The words that mean something to the classifier.
const (
	WNone Word = iota

	// Words reserved in every server from 14 on: never the name of a function, a
	// table or an alias unless quoted, behind a dot or behind AS.
	WReserved // of no further interest
	WAll
	WAnd
	WArray
	WAs
	WCase
	WCreate
	WDefault
	WDistinct
	WDo
	WEnd
	WExcept
	WFalse
	WFetch
	WFor
	WFrom
	WGroup
	WHaving
	WIntersect
	WInto
	WLateral
	WLimit
	WNot
	WNull
	WOffset
	WOn
	WOnly
	WOr
	WOrder
	WReturning
	WSelect
	WTable
	WTo
	WTrue
	WUnion
	WUsing
	WWhere
	WWindow
	WWith
	lastReserved

	// Words that are keywords in some places only.
	WBefore // of no further interest: an expression may stand behind it
	WAbort
	WAlter
	WAtomic
	WAuthorization
	WBegin
	WBinary
	WBy
	WCall
	WChain
	WCharacteristics
	WClose
	WColumns
	WCommit
	WConstraints
	WCopy
	WCross
	WCube
	WCurrent
	WCycle
	WDeallocate
	WDeclare
	WDelete
	WDiscard
	WDrop
	WEscape
	WExecute
	WExplain
	WFilter
	WFirst
	WFull
	WGlobal
	WGrouping
	WHold
	WIlike
	WImport
	WInner
	WInsert
	WIs
	WIsolation
	WJoin
	WKey
	WLeft
	WLevel
	WListen
	WLoad
	WLocal
	WLock
	WMaterialized
	WMerge
	WMove
	WNames
	WNatural
	WNext
	WNo
	WNotify
	WOperator
	WOption
	WOuter
	WOver
	WPartition
	WPrepare
	WPrepared
	WRead
	WRecursive
	WRelease
	WRepeatable
	WReplace
	WReset
	WRight
	WRole
	WRollback
	WRollup
	WRows
	WSavepoint
	WSchema
	WSearch
	WSerializable
	WSession
	WSet
	WSets
	WShare
	WShow
	WStart
	WStdin
	WStdout
	WTablesample
	WTemp
	WTemporary
	WTime
	WTransaction
	WUnlisten
	WUpdate
	WValues
	WVarying
	WWithin
	WWork
	WWrite
	WXML
	WZone
)

const maxKeyword = len("current_timestamp")

// Reserved reports whether w can only be a keyword.
func (w Word) Reserved() bool { return w > WNone && w < lastReserved }

// keyword returns the keyword that b, in lower case, is. The reserved words are
// those pg_get_keywords() calls so in 14 to 18 (system_user is not one in 14).
func keyword(b []byte) Word {
	switch string(b) {
	case "analyse", "analyze", "any", "asc", "asymmetric", "both", "cast", "check", "collate",
		"column", "constraint", "current_catalog", "current_date", "current_role", "current_time",
		"current_timestamp", "current_user", "deferrable", "desc", "else", "foreign", "grant", "in",
		"initially", "leading", "localtime", "localtimestamp", "placing", "primary", "references",
		"session_user", "some", "symmetric", "then", "trailing", "unique", "user",
		"variadic", "when":
		return WReserved
	case "all":
		return WAll
	case "and":
		return WAnd
	case "array":
		return WArray
	case "as":
		return WAs
	case "case":
		return WCase
	case "create":
		return WCreate
	case "default":
		return WDefault
	case "distinct":
		return WDistinct
	case "do":
		return WDo
	case "end":
		return WEnd
	case "except":
		return WExcept
	case "false":
		return WFalse
	case "fetch":
		return WFetch
	case "for":
		return WFor
	case "from":
		return WFrom
	case "group":
		return WGroup
	case "having":
		return WHaving
	case "intersect":
		return WIntersect
	case "into":
		return WInto
	case "lateral":
		return WLateral
	case "limit":
		return WLimit
	case "not":
		return WNot
	case "null":
		return WNull
	case "offset":
		return WOffset
	case "on":
		return WOn
	case "only":
		return WOnly
	case "or":
		return WOr
	case "order":
		return WOrder
	case "returning":
		return WReturning
	case "select":
		return WSelect
	case "table":
		return WTable
	case "to":
		return WTo
	case "true":
		return WTrue
	case "union":
		return WUnion
	case "using":
		return WUsing
	case "where":
		return WWhere
	case "window":
		return WWindow
	case "with":
		return WWith
	}
	return otherKeyword(b)
}

func otherKeyword(b []byte) Word {
	switch string(b) {
	case "between", "content", "document", "groups", "like", "overlaps", "passing", "path", "range", "ref",
		"value", "version":
		return WBefore
	case "abort":
		return WAbort
	case "alter":
		return WAlter
	case "atomic":
		return WAtomic
	case "authorization":
		return WAuthorization
	case "begin":
		return WBegin
	case "binary":
		return WBinary
	case "by":
		return WBy
	case "call":
		return WCall
	case "chain":
		return WChain
	case "characteristics":
		return WCharacteristics
	case "close":
		return WClose
	case "columns":
		return WColumns
	case "commit":
		return WCommit
	case "constraints":
		return WConstraints
	case "copy":
		return WCopy
	case "cross":
		return WCross
	case "cube":
		return WCube
	case "current":
		return WCurrent
	case "cycle":
		return WCycle
	case "deallocate":
		return WDeallocate
	case "declare":
		return WDeclare
	case "delete":
		return WDelete
	case "discard":
		return WDiscard
	case "drop":
		return WDrop
	case "escape":
		return WEscape
	case "execute":
		return WExecute
	case "explain":
		return WExplain
	case "filter":
		return WFilter
	case "first":
		return WFirst
	case "full":
		return WFull
	case "global":
		return WGlobal
	case "grouping":
		return WGrouping
	case "hold":
		return WHold
	case "ilike":
		return WIlike
	case "import":
		return WImport
	case "inner":
		return WInner
	case "insert":
		return WInsert
	case "is":
		return WIs
	case "isolation":
		return WIsolation
	case "join":
		return WJoin
	case "key":
		return WKey
	case "left":
		return WLeft
	case "level":
		return WLevel
	case "listen":
		return WListen
	case "load":
		return WLoad
	case "local":
		return WLocal
	case "lock":
		return WLock
	case "materialized":
		return WMaterialized
	case "merge":
		return WMerge
	case "move":
		return WMove
	case "names":
		return WNames
	case "natural":
		return WNatural
	case "next":
		return WNext
	case "no":
		return WNo
	case "notify":
		return WNotify
	case "operator":
		return WOperator
	case "option":
		return WOption
	case "outer":
		return WOuter
	case "over":
		return WOver
	case "partition":
		return WPartition
	case "prepare":
		return WPrepare
	case "prepared":
		return WPrepared
	case "read":
		return WRead
	case "recursive":
		return WRecursive
	case "release":
		return WRelease
	case "repeatable":
		return WRepeatable
	case "replace":
		return WReplace
	case "reset":
		return WReset
	case "right":
		return WRight
	case "role":
		return WRole
	case "rollback":
		return WRollback
	case "rollup":
		return WRollup
	case "rows":
		return WRows
	case "savepoint":
		return WSavepoint
	case "schema":
		return WSchema
	case "search":
		return WSearch
	case "serializable":
		return WSerializable
	case "session":
		return WSession
	case "set":
		return WSet
	case "sets":
		return WSets
	case "share":
		return WShare
	case "show":
		return WShow
	case "start":
		return WStart
	case "stdin":
		return WStdin
	case "stdout":
		return WStdout
	case "tablesample":
		return WTablesample
	case "temp":
		return WTemp
	case "temporary":
		return WTemporary
	case "time":
		return WTime
	case "transaction":
		return WTransaction
	case "unlisten":
		return WUnlisten
	case "update":
		return WUpdate
	case "values":
		return WValues
	case "varying":
		return WVarying
	case "within":
		return WWithin
	case "work":
		return WWork
	case "write":
		return WWrite
	case "xml":
		return WXML
	case "zone":
		return WZone
	}
	return WNone
}
