package oracle

import (
	"reflect"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/lsnproxy/lsnproxy/route"
)

// facts are what a parse tree says of a text, beside whether it reads.
type facts struct {
	multi, copyIn, chain, schema bool
	pins                         bool // leaves something in the session
	kind                         route.Kind
	reset                        route.Reset
	name                         string
}

// factsOf reads the facts. The kind of a statement that is neither of
// transactions nor of the proxy is Write here: the judge decides.
func factsOf(tree *pg.ParseResult) facts {
	if len(tree.Stmts) == 0 {
		return facts{kind: route.Empty}
	}
	var all facts
	deallocated := 0
	for i, raw := range tree.Stmts {
		one := statementFacts(raw.Stmt)
		if one.kind == route.OwnSet && len(tree.Stmts) > 1 {
			one.pins = true
		}
		if one.reset >= route.ResetDeallocate {
			deallocated++
		}
		if i == 0 {
			all = one
			continue
		}
		all = facts{
			multi: true, copyIn: all.copyIn || one.copyIn, schema: all.schema || one.schema,
			pins: all.pins || one.pins, reset: max(all.reset, one.reset),
		}
	}
	if deallocated > 1 {
		all.reset = max(all.reset, route.ResetDeallocateAll)
	}
	return all
}

func statementFacts(stmt *pg.Node) facts {
	var f facts
	switch n := stmt.Node.(type) {
	case *pg.Node_TransactionStmt:
		f.kind, f.chain = transactionKind(n.TransactionStmt), n.TransactionStmt.Chain
	case *pg.Node_VariableShowStmt:
		if name, ok := own(n.VariableShowStmt.Name); ok {
			f.kind, f.name = route.Own, name
		}
	case *pg.Node_VariableSetStmt:
		f = settingFacts(n.VariableSetStmt)
	case *pg.Node_ExecuteStmt:
		f.name = n.ExecuteStmt.Name
	case *pg.Node_DeallocateStmt:
		f.reset, f.name = route.ResetDeallocate, n.DeallocateStmt.Name
		if f.name == "" {
			f.reset = route.ResetDeallocateAll
		}
	case *pg.Node_DiscardStmt:
		if n.DiscardStmt.Target == pg.DiscardMode_DISCARD_ALL {
			f.reset = route.ResetDiscardAll
		}
	case *pg.Node_CopyStmt:
		f.copyIn = n.CopyStmt.IsFrom && !n.CopyStmt.IsProgram && n.CopyStmt.Filename == ""
		f.pins = leaves(stmt)
	case *pg.Node_PrepareStmt, *pg.Node_ListenStmt, *pg.Node_LoadStmt:
		f.pins = true
	case *pg.Node_DeclareCursorStmt:
		const hold = 0x0020 // CURSOR_OPT_HOLD in nodes/parsenodes.h
		f.pins = n.DeclareCursorStmt.Options&hold != 0
	case *pg.Node_CreateFunctionStmt, *pg.Node_AlterFunctionStmt, *pg.Node_CreateCastStmt,
		*pg.Node_CreateDomainStmt, *pg.Node_CreateExtensionStmt, *pg.Node_CreatePolicyStmt, *pg.Node_RuleStmt,
		*pg.Node_AlterTableStmt, *pg.Node_CreateForeignTableStmt, *pg.Node_ImportForeignSchemaStmt,
		*pg.Node_DefineStmt, *pg.Node_RenameStmt, *pg.Node_AlterObjectSchemaStmt:
		f.schema = !indexOnly(stmt)
		if c := stmt.GetCreateFunctionStmt(); c != nil && c.Funcname[0].GetString_().GetSval() == "pg_temp" {
			f.schema, f.pins = false, true
		}
	case *pg.Node_CreateStmt:
		f.creates(n.CreateStmt.Relation, n.CreateStmt.Oncommit)
	case *pg.Node_CreateSeqStmt:
		f.creates(n.CreateSeqStmt.Sequence, 0)
	case *pg.Node_ViewStmt:
		f.creates(n.ViewStmt.View, 0)
	case *pg.Node_CreateTableAsStmt:
		f.creates(n.CreateTableAsStmt.Into.Rel, n.CreateTableAsStmt.Into.OnCommit)
	case *pg.Node_SelectStmt:
		if into := firstInto(n.SelectStmt); into != nil {
			f.creates(into.Rel, into.OnCommit)
		}
		f.pins = f.pins || leaves(stmt)
		f.name = locals(stmt)
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt, *pg.Node_ExplainStmt:
		f.pins = leaves(stmt)
		f.name = locals(stmt)
	}
	return f
}

// indexOnly reports whether ALTER, RENAME or CREATE is about something that a
// Catalog does not know.
func indexOnly(stmt *pg.Node) bool {
	object := pg.ObjectType_OBJECT_TABLE
	switch n := stmt.Node.(type) {
	case *pg.Node_AlterTableStmt:
		object = n.AlterTableStmt.Objtype
	case *pg.Node_RenameStmt:
		object = n.RenameStmt.RenameType
	case *pg.Node_AlterObjectSchemaStmt:
		object = n.AlterObjectSchemaStmt.ObjectType
	case *pg.Node_DefineStmt:
		object = n.DefineStmt.Kind
	}
	switch object {
	case pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_ROLE, pg.ObjectType_OBJECT_DATABASE,
		pg.ObjectType_OBJECT_TABLESPACE, pg.ObjectType_OBJECT_PUBLICATION, pg.ObjectType_OBJECT_SUBSCRIPTION,
		pg.ObjectType_OBJECT_STATISTIC_EXT, pg.ObjectType_OBJECT_COLLATION, pg.ObjectType_OBJECT_CONVERSION,
		pg.ObjectType_OBJECT_FOREIGN_SERVER:
		return true
	default:
		return false
	}
}

// creates notes what creating a relation changes.
func (f *facts) creates(rel *pg.RangeVar, end pg.OnCommitAction) {
	temporary := rel.Relpersistence == "t" || strings.HasPrefix(rel.Schemaname, "pg_temp")
	f.schema = !temporary
	f.pins = f.pins || temporary && end != pg.OnCommitAction_ONCOMMIT_DROP
}

// firstInto returns the INTO of a query; of a union it is in the leftmost.
func firstInto(s *pg.SelectStmt) *pg.IntoClause {
	for ; s != nil; s = s.Larg {
		if s.IntoClause != nil {
			return s.IntoClause
		}
	}
	return nil
}

func own(setting string) (string, bool) {
	return strings.CutPrefix(strings.ToLower(setting), "lsnproxy.")
}

func settingFacts(n *pg.VariableSetStmt) facts {
	f := facts{name: strings.ToLower(n.Name)}
	ours, isOurs := own(n.Name)
	switch n.Kind {
	case pg.VariableSetKind_VAR_RESET, pg.VariableSetKind_VAR_RESET_ALL:
		if isOurs {
			return facts{kind: route.OwnSet, name: ours}
		}
		f.reset = route.ResetSettings
	case pg.VariableSetKind_VAR_SET_MULTI:
		f.name = ""
		f.pins = n.Name == "SESSION CHARACTERISTICS" && !n.IsLocal
	default:
		if isOurs && n.Kind != pg.VariableSetKind_VAR_SET_CURRENT && len(n.Args) < 2 {
			return facts{kind: route.OwnSet, name: ours}
		}
		switch f.name {
		case "transaction_isolation", "transaction_read_only", "transaction_deferrable":
		default:
			f.pins = !n.IsLocal
		}
	}
	return f
}

func transactionKind(n *pg.TransactionStmt) route.Kind {
	switch n.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		only, refused := false, false
		for _, option := range n.Options {
			d := option.GetDefElem()
			switch value := d.Arg.GetAConst(); {
			case d.Defname == "transaction_read_only" && value.GetIval().GetIval() != 0:
				only = true
			case d.Defname == "transaction_read_only", value.GetSval().GetSval() == "serializable":
				refused = true
			}
		}
		if only && !refused {
			return route.BeginReadOnly
		}
		return route.Begin
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		return route.Commit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		return route.Rollback
	default:
		return route.Write
	}
}

// leaves reports whether a function called anywhere in the tree leaves something
// in the session.
func leaves(n any) bool {
	found := false
	every(reflect.ValueOf(n), func(n any) {
		call, ok := n.(*pg.FuncCall)
		if !ok {
			return
		}
		switch last(call.Funcname) {
		case "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
			"setseed", "pg_backend_pid":
			found = true
		case "set_config":
			local := len(call.Args) == 3 && call.Args[2].GetAConst().GetBoolval().GetBoolval()
			found = found || !local
		}
	})
	return found
}

// locals are the custom settings that calls of set_config anywhere in the tree set
// for the transaction, as route.Class.Name has them.
func locals(n any) string {
	all := ""
	every(reflect.ValueOf(n), func(n any) {
		call, ok := n.(*pg.FuncCall)
		if !ok || last(call.Funcname) != "set_config" || len(call.Args) != 3 || !call.Args[2].GetAConst().GetBoolval().GetBoolval() {
			return
		}
		if name := strings.ToLower(call.Args[0].GetAConst().GetSval().GetSval()); strings.Contains(name, ".") {
			all = route.Union(all, name)
		}
	})
	return all
}

// every calls f with each node below v.
func every(v reflect.Value, f func(any)) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if !v.IsNil() {
			f(v.Interface())
			every(v.Elem(), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			every(v.Index(i), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				every(v.Field(i), f)
			}
		}
	}
}
