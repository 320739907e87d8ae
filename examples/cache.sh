#!/bin/sh
# A cache with curl: see examples/cache. TTL is how long a key lives after it was hit
# last, DIR where the content is.
#
#	cache.sh put KEY CONTENT
#	cache.sh get KEY
#	cache.sh clean
. "$(dirname "$0")/cairn.sh"
: "${TTL:=168h}" "${DIR:=cache}"

case $1 in
put)
	# The content first: a key that is alive has content.
	printf '%s' "$3" >"$DIR/$2"
	once
	request "/v1/kv/cache/$2?ttl=$TTL" -X PUT -H "$key"
	;;
get)
	request "/v1/kv/cache/$2" -H 'Accept: application/json'
	[ "$status" = 200 ] && request "/v1/leases/$(field lease)/keepalive" -X POST
	if [ "$status" = 200 ]; then
		echo "hit: $(cat "$DIR/$2")"
	else
		echo miss
	fi
	;;
clean)
	# What has lost its key loses its content. Each time that the stream begins, what
	# was lost meanwhile as well.
	stream '/v1/watch?prefix=cache/&initial=true' -H 'Accept: application/x-ndjson' | while read -r line; do
		case $line in
		*'"event":"synced"'*)
			for file in "$DIR"/*; do
				[ -e "$file" ] || continue
				request "/v1/kv/cache/$(basename "$file")"
				if [ "$status" = 404 ]; then
					rm -f "$file"
					echo "removed $(basename "$file"): it has no key"
				fi
			done
			echo clean
			;;
		*'"type":"delete"'*)
			printf '%s\n' "$line" | tr '{' '\n' | sed -n 's/.*"type":"delete".*"key":"cache\/\([^"]*\)".*"reason":"\([^"]*\)".*/\1 \2/p' | while read -r key reason; do
				rm -f "$DIR/$key"
				echo "removed $key: $reason"
			done
			;;
		esac
	done
	;;
esac
