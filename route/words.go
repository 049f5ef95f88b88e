package route

// word is a keyword, or wNone.
type word uint8

const (
	wNone word = iota

	// Words reserved in every server from 14 on: never the name of a function, a
	// table or an alias unless quoted, behind a dot or behind AS.
	wReserved // of no further interest
	wAll
	wAnd
	wArray
	wAs
	wCase
	wCreate
	wDefault
	wDistinct
	wDo
	wEnd
	wExcept
	wFalse
	wFetch
	wFor
	wFrom
	wGroup
	wHaving
	wIntersect
	wInto
	wLateral
	wLimit
	wNot
	wNull
	wOffset
	wOn
	wOnly
	wOr
	wOrder
	wReturning
	wSelect
	wTable
	wTo
	wTrue
	wUnion
	wUsing
	wWhere
	wWindow
	wWith
	lastReserved

	// Words that are keywords in some places only.
	wAbort
	wAlter
	wAtomic
	wAuthorization
	wBegin
	wBinary
	wBy
	wCall
	wChain
	wCharacteristics
	wClose
	wColumns
	wCommit
	wConstraints
	wCopy
	wCross
	wCube
	wCurrent
	wCycle
	wDeallocate
	wDeclare
	wDelete
	wDiscard
	wDrop
	wEscape
	wExecute
	wExplain
	wFilter
	wFirst
	wFull
	wGlobal
	wGrouping
	wHold
	wIlike
	wImport
	wInner
	wInsert
	wIs
	wIsolation
	wJoin
	wKey
	wLeft
	wLevel
	wListen
	wLoad
	wLocal
	wLock
	wMaterialized
	wMerge
	wMove
	wNames
	wNatural
	wNext
	wNo
	wNotify
	wOperator
	wOption
	wOuter
	wOver
	wPartition
	wPrepare
	wPrepared
	wRead
	wRecursive
	wRelease
	wRepeatable
	wReplace
	wReset
	wRight
	wRole
	wRollback
	wRollup
	wRows
	wSavepoint
	wSchema
	wSearch
	wSerializable
	wSession
	wSet
	wSets
	wShare
	wShow
	wStart
	wStdin
	wStdout
	wTablesample
	wTemp
	wTemporary
	wTime
	wTransaction
	wUnlisten
	wUpdate
	wValues
	wVarying
	wWithin
	wWork
	wWrite
	wXML
	wZone
)

const maxKeyword = len("current_timestamp")

// reserved reports whether w can only be a keyword.
func (w word) reserved() bool { return w > wNone && w < lastReserved }

// keyword returns the keyword that b, in lower case, is. The reserved words are
// those pg_get_keywords() calls so in 14 to 18 (system_user is not one in 14).
func keyword(b []byte) word {
	switch string(b) {
	case "analyse", "analyze", "any", "asc", "asymmetric", "both", "cast", "check", "collate",
		"column", "constraint", "current_catalog", "current_date", "current_role", "current_time",
		"current_timestamp", "current_user", "deferrable", "desc", "else", "foreign", "grant", "in",
		"initially", "leading", "localtime", "localtimestamp", "placing", "primary", "references",
		"session_user", "some", "symmetric", "then", "trailing", "unique", "user",
		"variadic", "when":
		return wReserved
	case "all":
		return wAll
	case "and":
		return wAnd
	case "array":
		return wArray
	case "as":
		return wAs
	case "case":
		return wCase
	case "create":
		return wCreate
	case "default":
		return wDefault
	case "distinct":
		return wDistinct
	case "do":
		return wDo
	case "end":
		return wEnd
	case "except":
		return wExcept
	case "false":
		return wFalse
	case "fetch":
		return wFetch
	case "for":
		return wFor
	case "from":
		return wFrom
	case "group":
		return wGroup
	case "having":
		return wHaving
	case "intersect":
		return wIntersect
	case "into":
		return wInto
	case "lateral":
		return wLateral
	case "limit":
		return wLimit
	case "not":
		return wNot
	case "null":
		return wNull
	case "offset":
		return wOffset
	case "on":
		return wOn
	case "only":
		return wOnly
	case "or":
		return wOr
	case "order":
		return wOrder
	case "returning":
		return wReturning
	case "select":
		return wSelect
	case "table":
		return wTable
	case "to":
		return wTo
	case "true":
		return wTrue
	case "union":
		return wUnion
	case "using":
		return wUsing
	case "where":
		return wWhere
	case "window":
		return wWindow
	case "with":
		return wWith
	}
	return otherKeyword(b)
}

func otherKeyword(b []byte) word {
	switch string(b) {
	case "abort":
		return wAbort
	case "alter":
		return wAlter
	case "atomic":
		return wAtomic
	case "authorization":
		return wAuthorization
	case "begin":
		return wBegin
	case "binary":
		return wBinary
	case "by":
		return wBy
	case "call":
		return wCall
	case "chain":
		return wChain
	case "characteristics":
		return wCharacteristics
	case "close":
		return wClose
	case "columns":
		return wColumns
	case "commit":
		return wCommit
	case "constraints":
		return wConstraints
	case "copy":
		return wCopy
	case "cross":
		return wCross
	case "cube":
		return wCube
	case "current":
		return wCurrent
	case "cycle":
		return wCycle
	case "deallocate":
		return wDeallocate
	case "declare":
		return wDeclare
	case "delete":
		return wDelete
	case "discard":
		return wDiscard
	case "drop":
		return wDrop
	case "escape":
		return wEscape
	case "execute":
		return wExecute
	case "explain":
		return wExplain
	case "filter":
		return wFilter
	case "first":
		return wFirst
	case "full":
		return wFull
	case "global":
		return wGlobal
	case "grouping":
		return wGrouping
	case "hold":
		return wHold
	case "ilike":
		return wIlike
	case "import":
		return wImport
	case "inner":
		return wInner
	case "insert":
		return wInsert
	case "is":
		return wIs
	case "isolation":
		return wIsolation
	case "join":
		return wJoin
	case "key":
		return wKey
	case "left":
		return wLeft
	case "level":
		return wLevel
	case "listen":
		return wListen
	case "load":
		return wLoad
	case "local":
		return wLocal
	case "lock":
		return wLock
	case "materialized":
		return wMaterialized
	case "merge":
		return wMerge
	case "move":
		return wMove
	case "names":
		return wNames
	case "natural":
		return wNatural
	case "next":
		return wNext
	case "no":
		return wNo
	case "notify":
		return wNotify
	case "operator":
		return wOperator
	case "option":
		return wOption
	case "outer":
		return wOuter
	case "over":
		return wOver
	case "partition":
		return wPartition
	case "prepare":
		return wPrepare
	case "prepared":
		return wPrepared
	case "read":
		return wRead
	case "recursive":
		return wRecursive
	case "release":
		return wRelease
	case "repeatable":
		return wRepeatable
	case "replace":
		return wReplace
	case "reset":
		return wReset
	case "right":
		return wRight
	case "role":
		return wRole
	case "rollback":
		return wRollback
	case "rollup":
		return wRollup
	case "rows":
		return wRows
	case "savepoint":
		return wSavepoint
	case "schema":
		return wSchema
	case "search":
		return wSearch
	case "serializable":
		return wSerializable
	case "session":
		return wSession
	case "set":
		return wSet
	case "sets":
		return wSets
	case "share":
		return wShare
	case "show":
		return wShow
	case "start":
		return wStart
	case "stdin":
		return wStdin
	case "stdout":
		return wStdout
	case "tablesample":
		return wTablesample
	case "temp":
		return wTemp
	case "temporary":
		return wTemporary
	case "time":
		return wTime
	case "transaction":
		return wTransaction
	case "unlisten":
		return wUnlisten
	case "update":
		return wUpdate
	case "values":
		return wValues
	case "varying":
		return wVarying
	case "within":
		return wWithin
	case "work":
		return wWork
	case "write":
		return wWrite
	case "xml":
		return wXML
	case "zone":
		return wZone
	}
	return wNone
}
