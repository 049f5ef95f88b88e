package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Table is what a command of the console answers with.
type Table struct {
	Columns []string // nil: there are no rows to be
	Rows    [][]string
	Tag     string
}

// Refusal is why the console does not do what it was asked to.
type Refusal struct{ SQLSTATE, Message, Hint string }

func (r *Refusal) Error() string { return r.Message }

const helpHint = "SHOW HELP lists what the console knows."

// Console answers statements, which semicolons part, up to the first that fails.
func (s *Source) Console(ctx context.Context, statements string) (all []Table, err error) {
	for statement := range strings.SplitSeq(statements, ";") {
		words := strings.Fields(statement)
		if len(words) == 0 {
			continue
		}
		t, err := s.command(ctx, words)
		if err != nil {
			return all, err
		}
		all = append(all, t)
	}
	return all, nil
}

func (s *Source) command(ctx context.Context, words []string) (Table, error) {
	is := func(i int, word string) bool { return strings.EqualFold(words[i], word) }
	switch {
	case is(0, "show") && len(words) == 2:
		if t, ok := s.show(words[1]); ok {
			return t, nil
		}
		return Table{}, &Refusal{"42704", fmt.Sprintf("there is nothing called %q to show", words[1]), helpHint}
	case is(0, "switchover") && len(words) == 1:
		return s.switchover(ctx, "")
	case is(0, "switchover") && len(words) == 3 && is(1, "to"):
		return s.switchover(ctx, strings.Trim(words[2], `'"`))
	default:
		return Table{}, &Refusal{"42601", fmt.Sprintf("the console does not know %q", strings.Join(words, " ")), helpHint}
	}
}

func (s *Source) switchover(ctx context.Context, to string) (Table, error) {
	if s.Switchover == nil {
		return Table{}, &Refusal{"0A000", "this proxy does not change the leader", ""}
	}
	if err := s.Switchover(ctx, to); err != nil {
		return Table{}, &Refusal{"55000", err.Error(), "SHOW NODES and SHOW FAILOVER tell how things are."}
	}
	return Table{Tag: "SWITCHOVER"}, nil
}

// view is one thing that can be shown.
type view struct {
	name, about string
	columns     []string
	rows        func(*Source) [][]string
}

// show gives what is called name.
func (s *Source) show(name string) (Table, bool) {
	all := append(slices.Clone(views), view{"help", "", []string{"command", "about"}, helpRows})
	i := slices.IndexFunc(all, func(v view) bool { return strings.EqualFold(v.name, name) })
	if i < 0 {
		return Table{}, false
	}
	return Table{Columns: all[i].columns, Rows: all[i].rows(s), Tag: "SHOW"}, true
}

func helpRows(s *Source) [][]string {
	rows := [][]string{{"SHOW HELP", "this list"}}
	for _, v := range views {
		rows = append(rows, []string{"SHOW " + strings.ToUpper(v.name), v.about})
	}
	if s.Switchover != nil {
		rows = append(rows, []string{"SWITCHOVER [TO 'HOST:PORT']", "have another server lead, without an error for anybody"})
	}
	return rows
}

// showHandler answers GET /show/NAME with what SHOW NAME shows, as a list of objects.
func (s *Source) showHandler(mux *http.ServeMux) {
	mux.HandleFunc("GET /show/{name}", func(w http.ResponseWriter, r *http.Request) {
		t, ok := s.show(r.PathValue("name"))
		if !ok {
			http.Error(w, "there is nothing of this name to show; /show/help lists what there is", http.StatusNotFound)
			return
		}
		rows := make([]map[string]string, len(t.Rows))
		for i, row := range t.Rows {
			rows[i] = make(map[string]string, len(row))
			for j, value := range row {
				rows[i][t.Columns[j]] = value
			}
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(rows) // fails if the one who asked is gone
	})
}
