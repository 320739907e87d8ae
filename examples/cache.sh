#!/bin/sh
# A cache with curl: see examples/cache. TTL is how long a key lives after it was hit
# last, DIR where the content is.
#
#	cache.sh put KEY CONTENT
#	cache.sh get KEY
#	cache.sh clean
. "$(dirname "$0")/cairn.sh"
: "${TTL:=168h}" "${DIR:=cache}"

# drop FILE WHAT WHY removes the content of one put.
drop() {
	rm -f "$DIR/$1"
	echo "removed $2: $3"
}

# sweep removes the files that no key names: those of puts that did not succeed, and
# of keys that ended while nobody looked. What a file of the last ten minutes is for
# may be on its way. The files are listed before the keys, so that the key of an older
# one is seen.
sweep() {
	swept=$(date +%s)
	old=$(cd "$DIR" && find . ! -name . -prune -type f -mmin +10 | sed 's/^..//')
	request '/v1/kv?prefix=cache/' -H 'Accept: application/x-ndjson' $streaming
	[ "$status" = 200 ] || again || return
	named=$(printf '%s\n' "$body" | sed -n 's/.*"value":"\([^"]*\)".*/\1/p')
	# What is named is there twice or more; what is there once is a file without a key.
	printf '%s\n' "$named" "$named" "$old" | grep . | sort | uniq -u | while read -r file; do
		drop "$file" "$file" 'no key names it'
	done
}

# lost prints what the events of a change took from each key: the file that it named,
# the one that it names now behind a =, why, and the key.
lost() {
	sed 's/"prev":{/"prev":/g' | tr '{' '\n' | sed -n \
		-e 's/.*"type":"delete","key":"cache\/\([^"]*\)".*"reason":"\([^"]*\)","prev":.*"value":"\([0-9A-Za-z]\{1,\}\)".*/\3 = \2 \1/p' \
		-e 's/.*"type":"put","key":"cache\/\([^"]*\)","value":"\([^" ]*\)".*"prev":.*"value":"\([0-9A-Za-z]\{1,\}\)".*/\3 =\2 replaced \1/p'
}

case $1 in
put)
	# The content first, and on the disk: a key that is alive has content. Each put has
	# a file of its own, which its key names, so that the end of a key takes away its
	# own content, however late that is noticed, and not what was put later.
	file=$(random)
	if ! printf '%s' "$3" >"$DIR/$file" || ! sync "$DIR/$file"; then
		rm -f "$DIR/$file"
		exit 1
	fi
	once
	request "/v1/kv/cache/$2?ttl=$TTL" -X PUT -H "$key" --data-raw "$file"
	case $status in
	200 | 201) ;;
	*)
		rm -f "$DIR/$file"
		printf '%s is not stored: %s\n' "$2" "$body" >&2
		exit 1
		;;
	esac
	;;
get)
	request "/v1/kv/cache/$2" -H 'Accept: application/json'
	case $status in
	200 | 404) ;;
	*)
		printf '%s\n' "$body" >&2
		exit 1
		;;
	esac
	file=$(field value | tr -dc 0-9A-Za-z)
	# A key whose content is gone is a miss, and is not renewed: it must come to its end.
	if [ "$status" = 200 ] && content=$(cat "$DIR/$file" 2>/dev/null) &&
		request "/v1/leases/$(field lease)/keepalive" -X POST && [ "$status" = 200 ]; then
		printf 'hit: %s\n' "$content"
	else
		echo miss
	fi
	;;
clean)
	# What has lost its key loses its content. Each time that the stream begins, what
	# was lost meanwhile as well, and every hour what never had a key. (A quiet stream
	# has a line every 15 s.)
	swept=$(date +%s)
	stream '/v1/watch?prefix=cache/&initial=true&prev=true' -H 'Accept: application/x-ndjson' | while read -r line; do
		case $line in
		*'"event":"synced"'*)
			sweep
			echo clean
			;;
		*'"event":"change"'*)
			printf '%s\n' "$line" | lost | while read -r file now reason key; do
				[ "=$file" = "$now" ] || drop "$file" "$key" "$reason"
			done
			;;
		esac
		[ $(($(date +%s) - swept)) -lt 3600 ] || sweep
	done
	;;
esac
