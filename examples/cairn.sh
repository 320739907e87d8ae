# What the scripts share. ENDPOINTS are the URLs of the nodes, separated by spaces.
ENDPOINTS="$(echo ${ENDPOINTS:-http://127.0.0.1:7480}) " # one space behind each

# request PATH [OPTION OF CURL]... asks one node after the other until one has
# answered, and that one first the next time. It sets status and body. What must not
# be done twice carries an Idempotency-Key.
#
# A node that lives has answered after 10 s. What waits for longer has a limit of its
# own.
request() {
	path=$1
	shift
	while :; do
		for url in $ENDPOINTS; do
			if body=$(curl -s -w '\n%{http_code}' --connect-timeout 2 -m 10 "$@" "$url$path"); then
				status=${body##*
}
				body=${body%
*}
				case $status in
				429 | 500 | 502 | 503 | 504) ;; # nothing was applied, or it may be repeated
				*) return 0 ;;
				esac
			fi
			ENDPOINTS="${ENDPOINTS#* }$url " # it becomes the last one
		done
		sleep 0.2
	done
}

# Streams last as long as they like. One that says nothing for 45 s is dead: a node
# says something every 15 s.
streaming='-m 0 --speed-limit 1 --speed-time 45'

# stream PATH [OPTION OF CURL]... follows a stream, on another node when one ends.
stream() {
	path=$1
	shift
	while :; do
		for url in $ENDPOINTS; do
			curl -sN --connect-timeout 2 $streaming "$@" "$url$path"
		done
		sleep 0.2
	done
}

# claim PATH JSON asks for a lock or a lead, and waits for its turn. The wait is a
# stream, which shows that the node lives. It fails if nothing was granted.
claim() {
	request "$1" -X POST -H "$json" -H 'Accept: text/event-stream' $streaming -d "$2"
	case $body in
	*'event: acquired'* | *'event: elected'*) ;;
	*) again ;;
	esac
}

# again says what was answered in place of what was hoped for, pauses, and fails.
again() {
	printf '%s, again: %s\n' "$status" "$body" >&2
	sleep 1
	return 1
}

# field NAME prints a member of the body, a number or a text without quotes, commas
# and braces.
field() {
	printf '%s\n' "$body" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"
}

# random prints what nobody else prints. The number of a process and the time are the
# same in many containers.
random() {
	od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

# once makes a new Idempotency-Key, the header in $key.
once() {
	key="Idempotency-Key: $(random)"
}

json='Content-Type: application/json'
