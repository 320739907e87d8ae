#!/bin/sh
# A counter under a lock with curl: see examples/lock.
#
#	lock.sh [TIMES]
. "$(dirname "$0")/cairn.sh"

# increment reads and writes, while nobody else does.
increment() {
	request /v1/kv/counter
	case $status in
	200) n=$body ;;
	404) n=0 ;;
	*) return 1 ;; # it says nothing of the counter
	esac
	case $n in
	'' | *[!0-9]*)
		printf 'the counter is no number: %s\n' "$n" >&2
		exit 1
		;;
	esac
	# With the fence it is written only if the lock is held even now, and with an
	# idempotency key once, whatever becomes of the connection.
	once
	request /v1/kv/counter -X PUT -d $((n + 1)) -H "Cairn-Fencing: $fence" -H "$key"
	[ "$status" = 200 ] || [ "$status" = 201 ]
}

done=0
while [ $done -lt "${1:-1}" ]; do
	claim /v1/locks/counter '{"ttl_seconds":5}' || continue
	token=$(field token) fence=$(field fence)
	if increment; then
		done=$((done + 1))
		echo "$((n + 1)) with token $token"
	else
		again
	fi
	request "/v1/locks/counter?token=$token" -X DELETE
done
