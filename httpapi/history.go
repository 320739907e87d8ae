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
	revision := v.Revision()
	page := historyPage{form: f, key: key, limit: limit, before: before, asked: asked, revision: revision, continued: continued}
	if continued {
		page.revision = c.revision
	}
	if x.readHistory(v, &page) {
		x.sendJSON(200, revision)
	}
}

// A historyPage is a page of the history of a key as it was asked for.
type historyPage struct {
	form
	key       []byte
	limit     int
	before    uint64 // the versions before this one, or the newest
	asked     [16]byte
	revision  uint64 // of the first page
	continued bool
}

// readHistory reads a page into x.out, and closes the view. It returns false when it
// has answered why not.
func (x *exchange) readHistory(v View, p *historyPage) bool {
	defer v.Close()
	if !x.enterPage() {
		return false
	}
	defer x.leavePage()
	b := append(x.out[:0], '{')
	b = appendBytes(b, "key", p.key, p.base64)
	b = append(b, `,"versions":[`...)
	count, more := 0, true
	for count < p.limit && more && len(b) < maxPageBytes {
		var events []kv.Event
		var err error
		events, more, err = v.History(p.key, p.before, min(historyBatch, p.limit-count))
		if err != nil {
			x.refuseRead(err)
			return false
		}
		for i := range events {
			if count > 0 {
				b = append(b, ',')
			}
			b = p.appendChange(b, &events[i])
			p.before = events[i].Entry.ModRevision
			count++
		}
		more = more && len(events) > 0
	}
	if count == 0 && !p.continued {
		x.fault = newFault(api.CodeKeyNotFound, "history has no version of this key")
		x.sendProblem(v.Revision())
		return false
	}
	b = append(b, ']')
	if more {
		next := x.s.encodeCursor(cursor{p.revision, p.asked, binary.BigEndian.AppendUint64(nil, p.before)})
		b = append(b, `,"next_cursor":`...)
		b = appendQuoted(b, next)
		x.setHeader("Link", "<"+x.nextTarget(next)+`>; rel="next"`)
	}
	x.out = append(b, '}')
	return true
}
