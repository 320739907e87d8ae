#!/usr/bin/env bash
# Records default.pgo, the profile by which the Go compiler decides what to inline
# (https://go.dev/doc/pgo): a node under one load of the benchmark after the other.
# Run it on a quiet machine, after changes to the paths that matter.
#
#   scripts/profile.sh
#
# Needs Go and curl; takes about three minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly loads='put-64 put-256 get-256 bulk list lease-renew-64 lease-grant-256 watch-fan-out'
readonly address=127.0.0.1:7490

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -trimpath -pgo=off -o "$work/cairn" .
(cd bench && go build -o "$work/bench" .)

for load in $loads; do
	"$work/bench" -cairn "$work/cairn" -cairn-args "--profile-listen $address" \
		-targets cairn -rounds 1 -duration 12s "$load" >"$work/$load.txt" 2>&1 &
	sleep 5 # until the keys are there, or the leases
	curl -sf --retry 50 --retry-connrefused --retry-delay 1 -o "$work/$load.pprof" \
		"http://$address/debug/pprof/profile?seconds=8"
	wait $!
	grep '^cairn ' "$work/$load.txt"
done
go tool pprof -proto "$work"/*.pprof >default.pgo
ls -l default.pgo
