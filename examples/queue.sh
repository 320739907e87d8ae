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
		request '/v1/kv/jobs/?sequence=true' -X POST --data-raw "$job" -H "$key"
		if [ "$status" != 201 ]; then
			printf '%s is not stored: %s\n' "$job" "$body" >&2
			exit 1
		fi
		printf '%s is %s\n' "$job" "$(field key)"
	done
	;;
work)
	while :; do
		request '/v1/kv?prefix=jobs/&limit=1&keys_only=true'
		[ "$status" = 200 ] || again || continue
		first=$(field key) revision=$(field mod_revision)
		if [ -z "$first" ]; then
			# Nothing happens until there is a job, or for half a minute.
			request "/v1/watch?prefix=jobs/&from_revision=$(($(field revision) + 1))&type=put&wait=30s" -m 40
			continue
		fi
		# The job comes as it is, any bytes; in JSON some are escaped. (But those that
		# a variable can't hold: for jobs with bytes of 0, use curl's -o.)
		request "/v1/kv/$first"
		case $status in
		200) job=$body ;;
		404) continue ;; # another has it
		*) again || continue ;;
		esac
		# Whoever deletes the key has the job.
		once
		request /v1/txn -X POST -H "$json" -H "$key" \
			-d "{\"if\":[{\"key\":\"$first\",\"mod_revision\":{\"eq\":$revision}}],\"then\":[{\"delete\":{\"key\":\"$first\"}}]}"
		[ "$status" = 200 ] || again || continue
		[ "$(field succeeded)" = true ] && printf '%s does %s\n' "$2" "$job"
	done
	;;
esac
