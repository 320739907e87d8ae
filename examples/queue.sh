#!/bin/sh
# A fair queue with curl: see examples/queue.
#
#	queue.sh push JOB...
#	queue.sh work NAME
. "$(dirname "$0")/cairn.sh"

case $1 in
push)
	shift
	for job; do
		once
		request '/v1/kv/jobs/?sequence=true' -X POST -d "$job" -H "$key"
		echo "$job is $(field key)"
	done
	;;
work)
	while :; do
		request '/v1/kv?prefix=jobs/&limit=1'
		first=$(field key)
		if [ -z "$first" ]; then
			# Nothing happens until there is a job, or for half a minute.
			request "/v1/watch?prefix=jobs/&from_revision=$(($(field revision) + 1))&type=put&wait=30s"
			continue
		fi
		job=$(field value)
		# Whoever deletes the key has the job.
		once
		request /v1/txn -X POST -H "$json" -H "$key" \
			-d "{\"if\":[{\"key\":\"$first\",\"mod_revision\":{\"eq\":$(field mod_revision)}}],\"then\":[{\"delete\":{\"key\":\"$first\"}}]}"
		[ "$(field succeeded)" = true ] && echo "$2 does $job"
	done
	;;
esac
