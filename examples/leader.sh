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

# keep renews a lease as long as this script lives. A node that says nothing leaves
# time to ask another one.
keep() {
	while kill -0 $$ 2>/dev/null; do
		request "/v1/leases/$1/keepalive" -X POST -m 1
		[ "$status" = 200 ] || return
		sleep 1
	done
}

# lead waits until it is elected and then works until it has lost the lead.
lead() {
	# With a lease of its own it may ask again: it gets what it was granted.
	claim /v1/elections/scheduler "{\"lease\":\"$lease\",\"value\":\"$1\"}" || return
	fence=$(field fence)
	echo elected
	turn=0
	while :; do
		turn=$((turn + 1))
		# What only a leader may do carries its fence: late, it is refused.
		request /v1/kv/scheduler/turn -X PUT --data-raw "$1 $turn" -H "Cairn-Fencing: $fence"
		[ "$status" = 412 ] && return
		sleep 1
	done
}

# campaign leads again and again, each time with a lease of its own.
campaign() {
	while :; do
		once
		request /v1/leases -X POST -H "$json" -d '{"ttl_seconds":3}' -H "$key"
		[ "$status" = 201 ] || again || continue
		lease=$(field id)
		keep "$lease" &
		keeper=$!
		lead "$1"
		# Nobody renews this one any more.
		kill "$keeper" 2>/dev/null
		wait "$keeper" 2>/dev/null
		request "/v1/leases/$lease" -X DELETE
	done
}

# All that this script has started ends with it. The signal for that reaches this shell
# as well, which must not come back here. This stands before anything is started: what
# runs in the background of a script is told nothing by the keyboard. And this shell does
# nothing but wait: for a command in its foreground it would put the signal off, which
# that command may have lost where it was just being started.
trap 'trap "" TERM; kill 0; exit 0' INT TERM
follow &
campaign "$1" &
wait
