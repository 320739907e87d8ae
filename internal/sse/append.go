package sse

import (
	"bytes"
	"strconv"
	"time"
)

// ContentType is the media type of a stream.
const ContentType = "text/event-stream"

// AppendEvent appends one event. An empty id leaves the reader's last event id
// as it is, an empty event is one of type "message". Neither may contain a line
// break, and an id no NUL: readers would take them for something else. Data of
// several lines arrives with its line breaks as LF.
func AppendEvent(b []byte, id, event string, data []byte) []byte {
	if id != "" {
		b = append(b, "id: "...)
		b = append(b, id...)
		b = append(b, '\n')
	}
	if event != "" {
		b = append(b, "event: "...)
		b = append(b, event...)
		b = append(b, '\n')
	}
	for {
		i := bytes.IndexAny(data, "\r\n")
		b = append(b, "data: "...)
		if i < 0 {
			b = append(b, data...)
			return append(b, '\n', '\n')
		}
		b = append(b, data[:i]...)
		b = append(b, '\n')
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
}

// AppendComment appends a line that readers ignore. It keeps a quiet stream open
// through proxies. The text may not contain a line break.
func AppendComment(b []byte, text string) []byte {
	b = append(b, ": "...)
	b = append(b, text...)
	return append(b, '\n', '\n')
}

// AppendRetry appends how long a reader is to wait before it connects again,
// to the millisecond.
func AppendRetry(b []byte, d time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, d.Milliseconds(), 10)
	return append(b, '\n', '\n')
}
