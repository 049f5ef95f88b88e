// Package oracle holds package route against PostgreSQL's own parser, which
// pg_query_go carries as C. It is a module of its own so that the proxy needs
// neither C nor that parser: pg_query_go dies on deeply nested text, and must
// never read what comes from a client.
//
// Run it with: go test ./...
//
// With PostgreSQL's regression tests as a further corpus: ./corpus.sh DIR, then
// go test ./... -corpus DIR
package oracle
