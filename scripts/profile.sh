#!/usr/bin/env bash
# Records default.pgo, the profile by which the Go compiler decides what to inline
# (https://go.dev/doc/pgo): a node under one load of the benchmark after the other,
# then three nodes that share a load. Run it on a quiet machine, after changes to the
# paths that matter.
#
#   scripts/profile.sh
#
# Needs Go and curl; takes about four minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly loads='put-64 put-256 get-256 bulk list lease-renew-64 lease-grant-256 watch-fan-out'
readonly address=127.0.0.1:7490

work=$(mktemp -d)
nodes=()
cleanup() {
	[ ${#nodes[@]} = 0 ] || kill "${nodes[@]}" 2>/dev/null || true
	wait
	rm -rf "$work"
}
trap cleanup EXIT

# record NAME ADDRESS takes a profile of 8 s.
record() {
	curl -sf --retry 50 --retry-connrefused --retry-delay 1 -o "$work/$1.pprof" "http://$2/debug/pprof/profile?seconds=8"
}

CGO_ENABLED=0 go build -trimpath -pgo=off -o "$work/cairn" .
(cd bench && go build -o "$work/bench" .)

for load in $loads; do
	"$work/bench" -cairn "$work/cairn" -cairn-args "--profile-listen $address" \
		-targets cairn -rounds 1 -duration 12s "$load" >"$work/$load.txt" 2>&1 &
	sleep 5 # until the keys are there, or the leases
	bench=$!
	record "$load" "$address"
	wait $bench
	grep '^cairn ' "$work/$load.txt"
done

cluster=n1=127.0.0.1:7511,n2=127.0.0.1:7512,n3=127.0.0.1:7513
endpoints=http://127.0.0.1:7501,http://127.0.0.1:7502,http://127.0.0.1:7503
for i in 1 2 3; do
	"$work/cairn" serve --name n$i --data-dir "$work/n$i" --listen 127.0.0.1:750$i --initial-cluster $cluster \
		--profile-listen 127.0.0.1:749$i 2>"$work/n$i.log" &
	nodes+=($!)
done
"$work/cairn" status --endpoint $endpoints --wait 30s >/dev/null
"$work/cairn" bench put --endpoint $endpoints --clients 64 --keys 100000 --duration 15s &
bench=$!
sleep 5 # until the keys are there
records=()
for i in 1 2 3; do
	record n$i 127.0.0.1:749$i &
	records+=($!)
done
wait "${records[@]}"
wait $bench
go tool pprof -proto "$work"/*.pprof >default.pgo
ls -l default.pgo
