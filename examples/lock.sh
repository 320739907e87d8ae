#!/bin/sh
# A counter under a lock with curl: see examples/lock.
#
#	lock.sh [TIMES]
. "$(dirname "$0")/cairn.sh"

done=0
while [ $done -lt "${1:-1}" ]; do
	request /v1/locks/counter -X POST -H "$json" -d '{"ttl_seconds":5,"wait_seconds":60}'
	[ "$status" = 200 ] || continue
	token=$(field token) fence=$(field fence)
	request /v1/kv/counter
	n=0
	[ "$status" = 200 ] && n=$body
	# With the fence it is written only if the lock is held even now, and with an
	# idempotency key once, whatever becomes of the connection.
	once
	request /v1/kv/counter -X PUT -d $((n + 1)) -H "Cairn-Fencing: $fence" -H "$key"
	case $status in
	200 | 201)
		done=$((done + 1))
		echo "$((n + 1)) with token $token"
		;;
	*) echo "lost the lock; again" >&2 ;;
	esac
	request "/v1/locks/counter?token=$token" -X DELETE
done
