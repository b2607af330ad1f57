# shellcheck shell=bash
# What the person who waits sees. Progress goes to standard error, results to standard output.

say() {
	printf '%(%T)T  %s\n' -1 "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# logged NAME TEXT COMMAND... : runs a long command with its output in a log; says so once, then
# every 30 s, and shows the end of the log when it fails.
logged() {
	local name=$1 text=$2 log=$CACHE/log/$1.log started=$SECONDS job status=0
	shift 2
	say "$text ($log)"
	(set -e; "$@") >"$log" 2>&1 &
	job=$!
	while beat_or_end "$job"; do
		say "  $name: $((SECONDS - started)) s, still at it"
	done
	wait "$job" || status=$?
	((status == 0)) || { tail -n 25 "$log" >&2; die "$name failed, see $log"; }
	say "  $name: done in $((SECONDS - started)) s"
}

# beat_or_end PID : true after 30 s, false as soon as the process has ended.
beat_or_end() {
	! timeout 30 tail --pid="$1" -f /dev/null
}
