# What the scripts share. ENDPOINTS are the URLs of the nodes, separated by spaces.
: "${ENDPOINTS:=http://127.0.0.1:7480}"

# request PATH [OPTION OF CURL]... asks one node after the other until one has
# answered. It sets status and body. What must not be done twice carries an
# Idempotency-Key.
request() {
	path=$1
	shift
	while :; do
		for url in $ENDPOINTS; do
			body=$(curl -s -w '\n%{http_code}' --connect-timeout 2 "$@" "$url$path") || continue
			status=${body##*
}
			body=${body%
*}
			case $status in
			429 | 503 | 504) continue ;; # nothing was applied, or it may be repeated
			esac
			return 0
		done
		sleep 0.2
	done
}

# stream PATH [OPTION OF CURL]... follows a stream, on another node when one ends.
stream() {
	path=$1
	shift
	while :; do
		for url in $ENDPOINTS; do
			curl -sN --connect-timeout 2 --speed-limit 1 --speed-time 45 "$@" "$url$path"
		done
		sleep 0.2
	done
}

# field NAME prints a member of the body, a text or a number.
field() {
	printf '%s\n' "$body" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"
}

# once makes a new Idempotency-Key, the header in $key.
count=0
once() {
	count=$((count + 1))
	key="Idempotency-Key: $$-$(date +%s)-$count"
}

json='Content-Type: application/json'
