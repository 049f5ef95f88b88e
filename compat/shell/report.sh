# shellcheck shell=bash
# How the programs in shell say what works: one line for each feature,
# "feature ok|FAIL|none detail".

one_line() { tr -s '[:space:]' ' ' | sed 's/ $//'; }

# feature NAME FUNCTION: what FUNCTION prints must be the same on every run.
feature() {
	local out status
	# In a shell of its own, where the first command that fails ends it; not in a
	# condition, where bash would go on.
	out=$(set -euo pipefail; "$2" 2>&1)
	status=$?
	if [ $status -eq 0 ]; then
		echo "$1 ok $(one_line <<<"$out")"
	else
		echo "$1 FAIL $(one_line <<<"$out") (exit status $status)"
	fi
}

# name OF: one that no other program uses, nor another copy of this one.
name() { echo "${COMPAT_NAME:-compat}_$1"; }
