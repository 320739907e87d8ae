#!/bin/sh
# An election with curl: see examples/leader.
#
#	leader.sh NAME
. "$(dirname "$0")/cairn.sh"

# follow says who leads, whenever that changes.
follow() {
	stream /v1/elections/scheduler/observe -H 'Accept: text/event-stream' | while read -r line; do
		case $line in
		'data: '*'"value":'*) echo "$(body=$line; field value) leads" ;;
		esac
	done
}

# keep renews a lease as long as this script lives.
keep() {
	while kill -0 $$ 2>/dev/null; do
		request "/v1/leases/$1/keepalive" -X POST
		[ "$status" = 200 ] || return
		sleep 1
	done
}

follow &
trap 'kill 0' INT TERM
while :; do
	once
	request /v1/leases -X POST -H "$json" -d '{"ttl_seconds":3}' -H "$key"
	lease=$(field id)
	keep "$lease" &
	# With a lease of its own it may ask again: it gets what it was granted.
	request /v1/elections/scheduler -X POST -H "$json" -d "{\"lease\":\"$lease\",\"wait_seconds\":600,\"value\":\"$1\"}"
	[ "$status" = 200 ] || continue
	fence=$(field fence)
	echo elected
	turn=0
	while :; do
		turn=$((turn + 1))
		# What only a leader may do carries its fence: late, it is refused.
		request /v1/kv/scheduler/turn -X PUT -d "$1 $turn" -H "Cairn-Fencing: $fence"
		[ "$status" = 412 ] && break
		sleep 1
	done
done
