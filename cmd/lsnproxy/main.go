// Command lsnproxy is a PostgreSQL proxy for applications that read from
// followers and want to see what they wrote.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (see the Makefile).
var version = ""

func main() {
	err := root().Execute()
	var status exitStatus
	switch {
	case err == nil:
	case errors.As(err, &status):
		os.Exit(int(status))
	default:
		fmt.Fprintln(os.Stderr, "lsnproxy:", err)
		os.Exit(1)
	}
}

// exitStatus ends the process with a status and says nothing more: what there
// was to say was said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func root() *cobra.Command {
	r := &cobra.Command{
		Use:   "lsnproxy",
		Short: "A PostgreSQL proxy: writes to the leader, reads on followers that have applied what the session wrote",
		// An error of a command is not about how it was called.
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	r.AddCommand(serveCommand(), demoCommand(), checkCommand(), statusCommand(), voterCommand(), switchoverCommand(), rejoinCommand(), versionCommand())
	return r
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "lsnproxy %s (%s, %s/%s)\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// versionText is the version that was linked in, or that of the module when it
// was built by go install.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
