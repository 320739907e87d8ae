#!/usr/bin/env bash
# Runs every check of this repository: formatting, vet, the race detector where
# goroutines meet, the benchmark's module, and all tests.
#
#   scripts/test.sh          what is run before every commit, some 25 minutes
#                            from an empty build cache on 2 cores
#   scripts/test.sh --long   the same, but with CAIRN_LONG=1: longer random
#                            histories, the race detector everywhere, a minute
#                            for each fuzz target, and `go mod tidy -diff`
#
# Needs Go, git and curl. Ends with a summary and the last lines of every go
# test; the exit status is 0 only if nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

long=
case "${1-}" in
'') ;;
--long) long=1 ;;
*)
	echo "usage: scripts/test.sh [--long]" >&2
	exit 2
	;;
esac

if ! command -v curl >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq && apt-get install -y -qq --no-install-recommends curl
fi
# What some tests of ./robustness and ./monitoring need besides. They are skipped
# without it.
if [ -n "$long" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	for tool in chromium nginx; do
		command -v "$tool" >/dev/null || apt-get install -y -qq --no-install-recommends "$tool" || true
	done
fi
if [ -n "$long${CI-}" ] && ! command -v prometheus >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus || true
fi
for tool in go git curl; do
	if ! command -v "$tool" >/dev/null; then
		echo "scripts/test.sh needs $tool" >&2
		exit 2
	fi
done

output=$(mktemp)
trap 'rm -f "$output"' EXIT
summary=
failed=0

# step NAME COMMAND… runs a command and remembers how it went and how long it
# took. Its output is shown as it comes.
step() {
	local name=$1 began=$SECONDS verdict=ok
	shift
	printf '\n== %s\n' "$name"
	if ! "$@" 2>&1 | tee -a "$output"; then
		verdict=FAILED
		failed=1
	fi
	summary+=$(printf '%-8s %4ds  %s' "$verdict" $((SECONDS - began)) "$name")$'\n'
}

formatted() {
	local wrong
	wrong=$(git ls-files -z --cached --others --exclude-standard -- '*.go' ':!:**/testdata/**' | xargs -0 gofmt -l) || return 1
	[ -z "$wrong" ] && return
	printf 'not formatted as gofmt does:\n%s\n' "$wrong"
	return 1
}

# What of the benchmark's tests starts etcd is left to --long.
bench() { (cd bench && go vet ./... && go test -timeout 5m $([ -n "$long" ] || echo -short) ./...); }

# fuzz runs each fuzz target for a minute.
fuzz() {
	local package target status=0
	for package in $(go list ./...); do
		for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz'); do
			go test -run '^$' -fuzz "^$target\$" -fuzztime 60s -timeout 10m "$package" || status=1
		done
	done
	return $status
}

# The race detector runs where goroutines share memory. In storage that is a few
# tests; the rest of them is one goroutine's work, which it makes ten times as
# slow. What it has run is not run again without it, but for what it leaves out, or
# has less of.
racy=(./kv ./leases ./watchers ./coordination ./raftsm ./httpapi ./client)
racy_storage='Meanwhile|Close|Outlive|Scripts'
too_much='^(TestTwin|TestHerd|TestAllocations|TestIdleWatchMemory|TestTranscriptsOnANode|TestLeaderThatAppliesNothing)$'
others() { go list ./... | grep -vE "/(robustness|$(IFS='|'; echo "${racy[*]#./}"))\$"; }

# A shared disk may stand still for longer than a write waits for it. So all but
# ./robustness, which measures that, have their files in memory, where there is room;
# what is built stays where it was.
in_memory() {
	local status
	if [ -z "$memory" ]; then
		"$@"
		return
	fi
	TMPDIR=$memory GOTMPDIR=$disk "$@"
	status=$?
	rm -rf "${memory:?}"/*
	return $status
}
disk=${TMPDIR:-/tmp}
memory=
free_kib() { df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 {print $4}'; }
available_kib() { awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo 2>/dev/null; }
if [ -z "$long" ] && [ "$(free_kib)" -gt 6000000 ] 2>/dev/null && [ "$(available_kib)" -gt 10000000 ] 2>/dev/null; then
	memory=$(mktemp -d /dev/shm/cairn-test.XXXXXX) || memory=
	if [ -n "$memory" ] && ! { cp "$(type -P true)" "$memory/true" && "$memory/true"; }; then # no programs there
		rm -rf "$memory"
		memory=
	fi
	trap 'rm -rf "$output" ${memory:+"$memory"}' EXIT
fi

# Without default.pgo the tests share with the binary what is compiled; it changes
# what is inlined, and nothing else.
export GOFLAGS="${GOFLAGS:+$GOFLAGS }-pgo=off"

step 'gofmt' formatted
step 'go vet' go vet ./...
if [ -n "$long" ]; then
	export CAIRN_LONG=1
	echo 'CAIRN_LONG=1: long random histories in storage, robustness and wherever else a test asks for it'
	step 'go mod tidy' go mod tidy -diff
	step 'fuzz targets, a minute each' fuzz
	step 'go test -race, all' go test -race -timeout 3h ./...
	step 'go test, all' go test -timeout 3h ./...
else
	step "go test -race, ${racy[*]}" in_memory go test -race -short -timeout 8m "${racy[@]}"
	step 'go test -race, ./storage in part' in_memory go test -race -short -timeout 8m -run "$racy_storage" ./storage
	# The clusters of real processes have the machine to themselves: how soon a
	# node is ready again is part of what they check.
	step 'go test, what is too much for the race detector' in_memory go test -timeout 8m -run "$too_much" "${racy[@]}"
	step 'go test, all others but ./robustness' in_memory go test -timeout 10m $(others)
	step 'go test, ./robustness' go test -timeout 15m ./robustness
fi
step 'bench: go vet and go test' bench
for tool in chromium nginx; do
	PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || summary+="SKIPPED        ./robustness: what needs $tool, which is not here"$'\n'
done
command -v prometheus >/dev/null || summary+="SKIPPED        ./monitoring: what needs prometheus, which is not here"$'\n'

[ -n "$memory" ] || summary+="NOTE           all tests had their files on the disk: /dev/shm has no room, or no programs"$'\n'

printf '\n== summary\n%s' "$summary"
printf '%-8s %4ds  all\n\n' "$([ $failed = 0 ] && echo ok || echo FAILED)" "$SECONDS"
grep -E '^(ok|FAIL|panic:|--- FAIL|\?)[[:space:]:]' "$output" | grep -v 'no test files'
exit $failed
