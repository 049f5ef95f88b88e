package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts this program on PATH, as lsnproxy, for all tests.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"lsnproxy": main}) }

// TestScripts runs testdata/script: what the command line says and answers with.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
