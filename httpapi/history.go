package httpapi

import (
	"encoding/binary"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// historyBatch is how many versions are read at a time, fewer if they are large: a
// page ends when its size does.
const historyBatch = 16

// history answers GET on the history of a key, newest version first.
func (x *exchange) history(key []byte) {
	f := form{base64: x.base64Param(), keysOnly: x.boolParam(pKeysOnly)}
	mode := x.readMode()
	limit := x.limitParam()
	asked := question([]byte{'h'}, key)
	var before uint64
	c, continued := x.cursorParam(asked, &mode)
	if continued {
		if len(c.after) != 8 {
			x.fail(api.CodeBadCursor, "the cursor was not made by this cluster")
		} else {
			before = binary.BigEndian.Uint64(c.after)
		}
	}
	v := x.view(&mode)
	if v == nil {
		return
	}
	defer v.Close()
	if !x.enterPage() {
		return
	}
	defer x.leavePage()
	revision := v.Revision()
	if continued {
		revision = c.revision
	}

	b := append(x.out[:0], '{')
	b = appendBytes(b, "key", key, f.base64)
	b = append(b, `,"versions":[`...)
	count, more := 0, true
	for count < limit && more && len(b) < maxPageBytes {
		var events []kv.Event
		var err error
		events, more, err = v.History(key, before, min(historyBatch, limit-count))
		if err != nil {
			x.refuseRead(err)
			return
		}
		for i := range events {
			if count > 0 {
				b = append(b, ',')
			}
			b = f.appendChange(b, &events[i])
			before = events[i].Entry.ModRevision
			count++
		}
		more = more && len(events) > 0
	}
	if count == 0 && !continued {
		x.fault = newFault(api.CodeKeyNotFound, "history has no version of this key")
		x.sendProblem(v.Revision())
		return
	}
	b = append(b, ']')
	if more {
		next := x.s.encodeCursor(cursor{revision, asked, binary.BigEndian.AppendUint64(nil, before)})
		b = append(b, `,"next_cursor":`...)
		b = appendQuoted(b, next)
		x.setHeader("Link", "<"+x.nextTarget(next)+`>; rel="next"`)
	}
	x.out = append(b, '}')
	x.sendJSON(200, v.Revision())
}
