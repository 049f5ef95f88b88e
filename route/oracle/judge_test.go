package oracle

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// judge says of a parse tree whether it is a read that means the same on a
// follower. It shares nothing with package route but the rows that a Catalog is
// built from.
type judge struct {
	functions map[string]string // objection to calling it, by name; empty if there is none
	relations map[string]string
	operators map[string]string
	types     map[string]string
	columns   map[string]string // of row.name
}

// Functions that are marked VOLATILE, and yet are harmless.
var harmless = strings.Fields(`random random_normal gen_random_uuid uuidv4 uuidv7 clock_timestamp timeofday
	pg_sleep pg_sleep_for pg_sleep_until array_sample array_shuffle current_query lo_get pg_partition_tree
	pg_partition_ancestors system bernoulli`)

// Functions that mean something else on each server, or in each session,
// whatever their mark.
var different = regexp.MustCompile(`^(pg_stat_.*|inet_(server|client)_(addr|port)|(txid|pg)_current(|_xact_id)(_if_assigned|_snapshot)?` +
	`|pg_(current|last)_(wal|xact).*|pg_walfile_name.*|pg_is_in_recovery|pg_(postmaster_start|conf_load)_time|version` +
	`|currval|lastval|nextval|setval|pg_(try_)?advisory_.*|pg_backend_pid|pg_cursor|pg_prepared_(statement|xact)` +
	`|pg_listening_channels|pg_show_all_settings|pg_config|pg_get_replication_slots|pg_available_extension.*` +
	`|pg_timezone_(names|abbrevs)|(table|schema|database|query|cursor)_to_xml.*|set_config|setseed|pg_tablespace_location)$`)

// Settings that each server has for itself.
var ownSetting = regexp.MustCompile(`^(all|port|listen_addresses|data_directory|.*_file|transaction_read_only|in_hot_standby` +
	`|primary_.*|recovery_.*|max_connections|shared_buffers|server_version.*|cluster_name|hot_standby.*|wal_level|archive_.*)$`)

// newJudge reads the rows. Views, policies and domains are judged by their text.
func newJudge(rows [][]string) *judge {
	j := &judge{
		functions: map[string]string{}, relations: map[string]string{}, operators: map[string]string{},
		types: map[string]string{}, columns: map[string]string{},
	}
	for _, row := range rows {
		switch row[0] {
		case "function":
			volatile := row[2] == "v" && !(strings.Contains(row[3], "b") && slices.Contains(harmless, row[1]))
			note(j.functions, row[1], volatile || different.MatchString(row[1]), "calls "+row[1])
			if strings.Contains(row[3], "d") {
				note(j.columns, row[1], volatile, "calls "+row[1])
			}
		case "keyword":
			note(j.functions, row[1], false, "")
		case "relation":
			note(j.relations, row[1], row[2] != "", row[2]+" "+row[1])
		case "operator":
			note(j.operators, row[1], row[2] == "v", "operator "+row[1])
		}
	}
	j.operators["!="] = j.operators["<>"]
	for changed := true; changed; {
		changed = false
		for _, row := range rows {
			changed = j.dependent(row) || changed
		}
	}
	return j
}

// note remembers an objection to a name; one of several meanings is enough.
func note(table map[string]string, name string, bad bool, why string) {
	if bad {
		table[name] = why
	} else if _, ok := table[name]; !ok {
		table[name] = ""
	}
}

// dependent judges what depends on something else; it reports whether it has
// found a new objection.
func (j *judge) dependent(row []string) bool {
	table, name, why := j.relations, row[1], ""
	switch row[0] {
	case "view", "policy":
		why = j.text(row[4])
	case "domain":
		table, why = j.types, j.text(row[4])
	case "inherits":
		name, why = row[3], j.relations[row[1]]
	case "uses":
		table, why = j.types, j.types[row[3]]
	}
	if why == "" || table[name] != "" {
		return false
	}
	table[name] = row[1] + ": " + why
	return true
}

// text judges a text that the server wrote: calls like columns are calls in it.
func (j *judge) text(sql string) string {
	tree, err := pg.Parse(sql)
	if err != nil {
		return err.Error()
	}
	written := *j
	written.columns = nil
	return written.objection(tree)
}

// objection says why what was parsed is not a read, or nothing if it is one.
func (j *judge) objection(tree *pg.ParseResult) string {
	if len(tree.Stmts) != 1 {
		return fmt.Sprintf("%d statements", len(tree.Stmts))
	}
	switch n := tree.Stmts[0].Stmt.Node.(type) {
	case *pg.Node_SelectStmt:
	case *pg.Node_ExplainStmt:
		if _, ok := n.ExplainStmt.Query.Node.(*pg.Node_SelectStmt); !ok {
			return "explains something else than a query"
		}
	case *pg.Node_CopyStmt:
		if c := n.CopyStmt; c.IsFrom || c.IsProgram || c.Filename != "" {
			return "copies from or to the server"
		}
	case *pg.Node_VariableShowStmt:
		if ownSetting.MatchString(strings.ToLower(n.VariableShowStmt.Name)) {
			return "shows " + n.VariableShowStmt.Name
		}
	default:
		return fmt.Sprintf("%T", n)
	}
	w := &walk{judge: j}
	w.value(reflect.ValueOf(tree.Stmts[0].Stmt), nil)
	return w.why
}

// walk goes through a tree; why is the first objection.
type walk struct {
	*judge
	why string
}

func (w *walk) object(why string) {
	if w.why == "" {
		w.why = why
	}
}

// use objects to a name that is not known, or not harmless.
func (w *walk) use(table map[string]string, name, what string) {
	if why, ok := table[name]; !ok {
		w.object("unknown " + what + " " + name)
	} else if why != "" {
		w.object(why)
	}
}

// value walks any part of the tree. ctes are the names of WITH in scope. The
// modifiers of a type parse as expressions but may only be constants.
func (w *walk) value(v reflect.Value, ctes []string) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return
		}
		if m, ok := v.Interface().(*pg.SelectStmt); ok {
			ctes = w.with(m.WithClause, ctes)
		}
		w.node(v.Interface(), ctes)
		w.value(v.Elem(), ctes)
	case reflect.Slice:
		for i := range v.Len() {
			w.value(v.Index(i), ctes)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "WithClause" && f.Name != "Typmods" {
				w.value(v.Field(i), ctes)
			}
		}
	}
}

// with walks the items of a WITH, each with the names that it can see, and
// returns those that the statement can see.
func (w *walk) with(clause *pg.WithClause, ctes []string) []string {
	if clause == nil {
		return ctes
	}
	ctes = slices.Clone(ctes)
	if clause.Recursive {
		for _, item := range clause.Ctes {
			ctes = append(ctes, item.GetCommonTableExpr().Ctename)
		}
	}
	for _, item := range clause.Ctes {
		w.value(reflect.ValueOf(item), ctes)
		ctes = append(ctes[:len(ctes):len(ctes)], item.GetCommonTableExpr().Ctename)
	}
	return ctes
}

// node judges one node of the tree.
func (w *walk) node(n any, ctes []string) {
	switch n := n.(type) {
	case *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
		w.object(fmt.Sprintf("%T", n))
	case *pg.LockingClause:
		w.object("locks")
	case *pg.IntoClause:
		w.object("into")
	case *pg.RangeVar:
		if n.Schemaname == "" && slices.Contains(ctes, n.Relname) {
			return
		}
		if strings.HasPrefix(n.Schemaname, "pg_temp") {
			w.object("temporary")
		}
		w.use(w.relations, n.Relname, "relation")
	case *pg.FuncCall:
		w.call(n)
	case *pg.RangeTableSample:
		w.use(w.functions, last(n.Method), "sampling method")
	case *pg.A_Expr:
		if !strings.HasSuffix(last(n.Name), "BETWEEN") && !strings.HasSuffix(last(n.Name), "SYMMETRIC") {
			w.use(w.operators, last(n.Name), "operator")
		}
	case *pg.SubLink:
		if len(n.OperName) > 0 {
			w.use(w.operators, last(n.OperName), "operator")
		}
	case *pg.SortBy:
		if len(n.UseOp) > 0 {
			w.use(w.operators, last(n.UseOp), "operator")
		}
	case *pg.TypeName:
		w.object(w.types[last(n.Names)])
	case *pg.ColumnRef:
		for _, field := range n.Fields[1:] {
			w.object(w.columns[field.GetString_().GetSval()])
		}
	case *pg.A_Indirection:
		for _, field := range n.Indirection {
			w.object(w.columns[field.GetString_().GetSval()])
		}
	}
}

func (w *walk) call(n *pg.FuncCall) {
	name := last(n.Funcname)
	if len(n.Funcname) > 1 && strings.HasPrefix(n.Funcname[0].GetString_().GetSval(), "pg_temp") {
		w.object("temporary")
	}
	w.use(w.functions, name, "function")
	if name == "current_setting" {
		var setting string
		if len(n.Args) > 0 {
			setting = n.Args[0].GetAConst().GetSval().GetSval()
		}
		if setting == "" || ownSetting.MatchString(strings.ToLower(setting)) {
			w.object("setting " + setting)
		}
	}
}

// last returns the last part of a qualified name.
func last(name []*pg.Node) string {
	if len(name) == 0 {
		return ""
	}
	return name[len(name)-1].GetString_().GetSval()
}
