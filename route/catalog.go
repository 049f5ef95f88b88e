package route

// CatalogQuery asks a database for what a Catalog holds. Any role may run it.
// Its rows have five columns of text, none of them null.
const CatalogQuery = `SELECT ''::text, ''::text, ''::text, ''::text, ''::text WHERE false`

// Catalog is what is known of the functions, relations, operators and types of
// one database. It is never changed once built.
type Catalog struct{}

// NewCatalog builds a Catalog from the rows of CatalogQuery.
func NewCatalog(rows [][]string) (*Catalog, error) { return &Catalog{}, nil }
