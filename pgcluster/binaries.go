package pgcluster

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// usualFolders is where packages put the server's programs, which few
// distributions put on PATH.
var usualFolders = []string{
	"/usr/lib/postgresql/*/bin",   // Debian, Ubuntu
	"/usr/pgsql-*/bin",            // PGDG packages for RHEL, Fedora, SUSE
	"/usr/lib/postgresql*/bin",    // SUSE
	"/usr/lib64/postgresql-*/bin", // Gentoo
	"/usr/libexec/postgresql*",    // Alpine
	"/usr/local/pgsql/bin",        // built from source
	"/opt/homebrew/opt/postgresql*/bin",
}

// needed are the programs a cluster is made and run with.
var needed = []string{"initdb", "postgres"}

// FindBinaries returns the folder of PostgreSQL's server programs: dir if it is
// given, else the one that the first on PATH are in or linked to, else the newest
// of the folders that packages use. The error says what to install.
func FindBinaries(dir string) (string, error) {
	if dir == "" {
		return findBinaries(os.Getenv("PATH"), usualFolders)
	}
	if missing := missingPrograms(dir); len(missing) > 0 {
		return "", fmt.Errorf("no %s in %s: it must be the folder of PostgreSQL's server programs", strings.Join(missing, ", "), dir)
	}
	return filepath.Abs(dir)
}

func findBinaries(path string, folders []string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) || len(missingPrograms(dir)) > 0 {
			continue
		}
		// Other programs, such as pgbench, may not be linked to from there.
		linked, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err == nil && len(missingPrograms(filepath.Dir(linked))) == 0 {
			dir = filepath.Dir(linked)
		}
		return dir, nil
	}
	for _, pattern := range folders {
		found, _ := filepath.Glob(pattern) // fails on a malformed pattern only
		found = slices.DeleteFunc(found, func(dir string) bool { return len(missingPrograms(dir)) > 0 })
		if len(found) > 0 {
			return slices.MaxFunc(found, byVersion), nil
		}
	}
	return "", fmt.Errorf("PostgreSQL's server programs (%s) were not found on PATH nor in the usual folders; install them with\n"+
		"    apt-get install postgresql            (Debian, Ubuntu)\n"+
		"    dnf install postgresql-server         (Fedora, RHEL)\n"+
		"    apk add postgresql                    (Alpine)\n"+
		"or name the folder that holds them", strings.Join(needed, ", "))
}

func missingPrograms(dir string) []string {
	var missing []string
	for _, name := range needed {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

var number = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)

// byVersion orders folders by the last number in their paths, the server's
// version, so that 9.6 comes before 14.
func byVersion(a, b string) int {
	version := func(dir string) float64 {
		numbers := number.FindAllString(dir, -1)
		if numbers == nil {
			return 0
		}
		v, _ := strconv.ParseFloat(numbers[len(numbers)-1], 64) // digits and a point are a number
		return v
	}
	return cmp.Compare(version(a), version(b))
}
