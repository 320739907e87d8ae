#!/bin/sh
# Service discovery with curl: see examples/registry.
#
#	registry.sh master NAME ADDRESS
#	registry.sh scheduler
. "$(dirname "$0")/cairn.sh"

case $1 in
master)
	# Registered until it ends; if it is gone without a word, three seconds longer.
	# (A second signal ends it also where no node answers.)
	trap 'trap - INT TERM; request "/v1/services/master/$2" -X DELETE; exit' INT TERM
	while :; do
		request "/v1/services/master/$2" -X PUT -H "$json" -d "{\"address\":\"$3\",\"ttl_seconds\":3}"
		[ "$status" = 201 ] && echo "registered $2"
		sleep 1 # here a master does its work
	done
	;;
scheduler)
	# Whatever the stream says, the list is read anew.
	stream '/v1/watch?prefix=_cairn/services/master/&initial=true' | while read -r line; do
		case $line in
		'event: synced'* | 'event: change'*)
			request /v1/services/master
			echo "servers:" $(printf '%s\n' "$body" | tr '{' '\n' | sed -n 's/.*"instance":"\([^"]*\)","address":"\([^"]*\)".*/\1=\2/p')
			;;
		esac
	done
	;;
esac
