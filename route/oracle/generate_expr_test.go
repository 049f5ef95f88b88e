package oracle

func (g *generator) column() { g.name(g.pick(columns)) }

func (g *generator) call() {
	name, schema := g.pick(functions), "pg_catalog"
	if g.chance(60) {
		name = g.pick(writers)
	}
	switch name {
	case "greatest", "coalesce":
		g.words(name)
	case "wf", "wf_ro":
		g.qualified(name, "public")
	default:
		g.qualified(name, schema)
	}
	g.parens(func() { g.list(g.expr) })
}

func (g *generator) expr() {
	g.deeper(g.compound, func() {
		if g.chance(2) {
			g.column()
		} else {
			g.literal()
		}
	})
}

func (g *generator) compound() {
	switch g.IntN(32) {
	case 0, 1, 2:
		g.column()
	case 3:
		g.name(g.pick(labels))
		g.emit(".")
		if g.chance(30) {
			g.name("label")
		} else {
			g.column()
		}
	case 4, 5, 6:
		g.literal()
	case 7, 8, 9:
		g.call()
	case 10, 11:
		g.expr()
		g.emit(g.pick(operators))
		g.expr()
	case 12:
		g.parens(g.query)
	case 13:
		g.words(g.pick([]string{"EXISTS", "ARRAY", "NOT EXISTS"}))
		g.parens(g.query)
	case 14:
		g.expr()
		g.words(g.pick([]string{"IN", "NOT~IN", "= ANY", "<> ALL"}))
		g.parens(g.query)
	case 15:
		g.words("CASE WHEN")
		g.expr()
		g.words("THEN")
		g.expr()
		g.words("ELSE")
		g.expr()
		g.words("END")
	case 16:
		g.words("CAST (")
		g.expr()
		g.words("AS")
		g.emit(g.pick(types))
		g.words(")")
	case 17:
		g.parens(g.expr)
		g.emit("::")
		g.emit(g.pick(types))
	default:
		g.special()
	}
}

// special writes what looks like a call or a clause and is not.
func (g *generator) special() {
	switch g.IntN(16) {
	case 0:
		g.words("EXTRACT ( year FROM")
		g.expr()
		g.words(")")
	case 1:
		g.words("SUBSTRING (")
		g.expr()
		g.words("FROM 1 FOR 2 )")
	case 2:
		g.words("TRIM ( BOTH 'x' FROM")
		g.expr()
		g.words(")")
	case 3:
		g.expr()
		g.words(g.pick([]string{"IS DISTINCT FROM", "IS NOT DISTINCT FROM", "BETWEEN 1 AND", "LIKE", "NOT~ILIKE", "SIMILAR TO", "AT TIME ZONE", "AND", "OR"}))
		g.parens(g.expr)
	case 4:
		g.words("count ( * )")
		if g.chance(2) {
			g.words("FILTER ( WHERE")
			g.expr()
			g.words(")")
		}
		if g.chance(2) {
			g.words("OVER")
			g.parens(g.window)
		}
	case 5:
		g.words("percentile_cont ( 0.5 ) WITHIN GROUP ( ORDER BY")
		g.expr()
		g.words(")")
	case 6:
		g.words("string_agg ( DISTINCT v , ',' ORDER BY")
		g.expr()
		g.words(")")
	case 7:
		g.parens(g.expr)
		g.words("OPERATOR ( pg_catalog . + )")
		g.expr()
	case 8:
		g.words("ROW (")
		g.list(g.expr)
		g.words(")")
	case 9:
		g.words("ARRAY [")
		g.list(g.expr)
		g.words("]")
	case 10:
		g.words(g.pick([]string{"current_timestamp ( 3 )", "current_user", "interval '1 day'", "date '2000-01-01'", "localtime", "numeric ( 10 , 2 ) '1'", "checked 'x'", "current_setting ( 'TimeZone' )", "current_setting ( 'port' )"}))
	case 11:
		g.words("NOT")
		g.expr()
	case 12:
		g.words("xmlelement ( name a , xmlattributes (")
		g.expr()
		g.words("AS b ) )")
	case 13:
		g.words("nullif (")
		g.expr()
		g.emit(",")
		g.expr()
		g.words(")")
	case 14:
		g.words("( t ) .")
		g.column()
	default:
		g.words("COLLATION FOR")
		g.parens(g.expr)
	}
}
